// What a reader would stumble over on the page as it is drawn now; run in the page by browser.py.
() => {
  const article = document.querySelector("article") ?? document.body;
  const name = (element) => {
    const text = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
    const classes = [...element.classList].join(".");
    return `<${element.localName}${classes ? "." + classes : ""}> ${JSON.stringify(text)}`;
  };
  const inside = (element, selector) => element.closest(selector) !== null;

  // An element that leaves the window without an ancestor that scrolls it.
  const scrolls = (element) => {
    for (let e = element; e && e !== document.body; e = e.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(e).overflowX)) return true;
    }
    return false;
  };
  const wide = [...article.querySelectorAll("*")].filter((element) => {
    if (inside(element, "svg, mjx-assistive-mml, .visually-hidden, .sr-only")) return false;
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && box.right > innerWidth + 1 && !scrolls(element);
  });
  const outermost = wide.filter((element) => !wide.includes(element.parentElement));

  // Text nodes with the marks of TeX outside code, which MathJax should have taken.
  const raw = [];
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (inside(node.parentElement, "pre, code, script, style, textarea, mjx-container")) continue;
    const mark = node.data.match(/\\[()[\]].{0,30}|\$\$.{0,30}|\\begin\{.{0,30}|\$[^$\s]*\\[a-z]+.{0,20}/);
    if (mark) raw.push(mark[0]);
  }

  return {
    theme: document.documentElement.dataset.theme,
    excess: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    wide: outermost.slice(0, 5).map(name),
    raw,
    unset: [...article.querySelectorAll(".math")]
      .filter((element) => !element.querySelector("mjx-container"))
      .map(name),
    errors: [...article.querySelectorAll("mjx-merror, [data-mml-node='merror']")].map(name),
    pictures: [...document.images]
      .filter((image) => image.complete && image.naturalWidth === 0 && image.src)
      .map((image) => image.getAttribute("src")),
    icons: [...document.querySelectorAll("i[class*='fa-']")].map(name),
    equations: article.querySelectorAll("mjx-container").length,
  };
};
