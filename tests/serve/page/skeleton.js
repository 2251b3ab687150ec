// What we draw and what markdown-it writes, in one form: [tag, what it carries, ...children] and texts. Our headings
// begin two levels lower, code and tables have frames.
() => {
  const SAME = { h3: 'h1', h4: 'h2', h5: 'h3', h6: 'h4+', s: 'del' };
  const THEIRS = { h4: 'h4+', h5: 'h4+', h6: 'h4+', s: 'del' };
  const join = (list) =>
    list.reduce((found, node) => {
      if (typeof node === 'string' && typeof found.at(-1) === 'string') found[found.length - 1] += node;
      else found.push(node);
      return found;
    }, []);
  window.skeleton = (element, names) => {
    if (element.nodeType === 3) return element.data.replace(/\s+/g, ' ');
    const tag = element.localName;
    const code = tag === 'div' && element.className === 'code' ? element.querySelector('pre') : element;
    if (code.localName === 'pre') return ['pre', code.textContent.trimEnd()];
    const inner = tag === 'div' && element.className === 'table' ? element.firstElementChild : element;
    const of = join([...inner.childNodes].map((child) => window.skeleton(child, names)))
      .map((child) => (typeof child === 'string' ? child.trim() : child))
      .filter((child) => child !== '');
    const extra = inner.localName === 'a' ? inner.href : inner.localName === 'ol' ? String(inner.start) : '';
    return [names[inner.localName] ?? inner.localName, extra, ...of];
  };
  window.SAME = SAME;
  window.THEIRS = THEIRS;
}
