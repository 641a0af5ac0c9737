// Before axe looks at contrast: of the coloured pieces of code, keep the first of each colour on the page,
// and turn the others into plain text. They look the same; axe would spend minutes on thousands of them.
() => {
  const seen = new Set();
  for (const piece of document.querySelectorAll("pre span")) {
    const kind = `${piece.className} ${piece.parentElement.className}`;
    if (piece.childElementCount || !piece.textContent.trim()) continue;
    if (seen.has(kind)) piece.replaceWith(piece.textContent);
    seen.add(kind);
  }
};
