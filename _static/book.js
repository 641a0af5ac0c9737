// What the theme leaves undone.

// A search shows the text around each hit, for which it fetches the pages; a page opened from disk may not.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The arrows that unfold a part of the table of contents have no name for those who hear the page.
document.addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll(".bd-sidebar-primary summary")) {
    const part = arrow.closest("li")?.querySelector("a")?.textContent.trim();
    arrow.setAttribute("aria-label", `Pages below ${part ?? "this one"}`);
  }
});
