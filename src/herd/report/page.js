"use strict";
// Nice touches only; the page says everything without them.

// The entry of the section being read stands out in the contents.
const links = new Map();
document.querySelectorAll(".contents a").forEach((link) => links.set(link.getAttribute("href").slice(1), link));
const mark = () => {
  let current = null;
  for (const [id, link] of links) {
    const part = document.getElementById(id);
    if (part && part.getBoundingClientRect().top < 160) current = link;
  }
  for (const link of links.values()) {
    if (link === current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
};
addEventListener("scroll", mark, { passive: true });
mark();

// Conversations by capability, language and verdict.
const form = document.querySelector(".filters");
if (form) {
  form.hidden = false;
  const talks = [...document.querySelectorAll(".talk")];
  const choose = () => {
    const wanted = [...form.querySelectorAll("select")].filter((select) => select.value);
    let shown = 0;
    for (const talk of talks) {
      talk.hidden = !wanted.every((select) => talk.dataset[select.name] === select.value);
      shown += talk.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = `${shown} of ${talks.length}`;
  };
  form.addEventListener("change", choose);
  choose();
}
