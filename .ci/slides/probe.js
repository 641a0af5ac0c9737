// What an audience would stumble over, on every slide in turn with all its clicks done; run by slides.py.
() => {
  const problems = [];
  const short = (element) => element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
  const stage = document.querySelector(".reveal .slides");
  Reveal.configure({ fragments: false });
  for (const section of Reveal.getSlides()) {
    const { h, v } = Reveal.getIndices(section);
    Reveal.slide(h, v);
    const add = (what) => problems.push({ slide: `${h + 1}.${(v ?? 0) + 1}`, what });
    const frame = stage.getBoundingClientRect();
    for (const block of section.querySelectorAll(":scope > .block")) {
      const box = block.getBoundingClientRect();
      const below = Math.round(box.bottom - frame.bottom);
      const beside = Math.round(box.right - frame.right);
      if (below > 1) add(`found ${below} px below the slide, ${JSON.stringify(short(block))}; expected all on it`);
      if (beside > 1) add(`found ${beside} px beside the slide, ${JSON.stringify(short(block))}; expected all on it`);
      const inner = [...block.querySelectorAll("img, table, mjx-container")].find(
        (e) => e.getBoundingClientRect().right > frame.right + 1 && !e.closest("pre, .scrolls, aside, mjx-assistive-mml"),
      );
      if (inner) add(`found <${inner.localName}> beside the slide; expected all on it`);
    }
    const walker = document.createTreeWalker(section, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node.parentElement.closest("pre, code, script, style, mjx-container")) continue;
      const mark = node.data.match(/:::.{0,30}|```.{0,30}|\{[a-z:-]+\}`.{0,20}|\\[()[\]].{0,30}|\$\$.{0,30}/);
      if (mark) add(`found ${mark[0]}; expected it rendered`);
    }
    for (const math of section.querySelectorAll(".math")) {
      if (!math.querySelector("mjx-container")) add(`found ${short(math)}; expected rendered math`);
    }
    for (const error of section.querySelectorAll("mjx-merror")) add(`found ${short(error)}; expected math without an error`);
    for (const image of section.querySelectorAll("img")) {
      if (image.naturalWidth === 0) add(`found ${image.getAttribute("src")}; expected a picture that can be drawn`);
    }
  }
  Reveal.configure({ fragments: true });
  Reveal.slide(0, 0);
  return problems;
};
