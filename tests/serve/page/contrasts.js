// [ratio, where] of every element with text of its own: its colour on what lies behind it (WCAG 2.2, 1.4.3). Hidden
// and disabled ones are left out.
() => {
  const SEEN = { opacityProperty: true, visibilityProperty: true };
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const backdrop = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    if (own[3] === 1) return own;
    const modal = element.localName === 'dialog';
    return over(own, backdrop(modal ? null : element.parentElement));
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes]
      .filter((node) => node.nodeType === 3)
      .map((node) => node.data.trim())
      .join('');
    const style = getComputedStyle(element);
    if (!text || !element.checkVisibility(SEEN) || element.disabled) continue;
    if (['SCRIPT', 'STYLE', 'OPTION'].includes(element.tagName) || element.closest('.hidden, .skip')) continue;
    const below = backdrop(element);
    const [a, b] = [light(over(rgba(style.color), below)), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, `${element.localName}.${element.className}: ${text.slice(0, 40)}`]);
  }
  return found;
}
