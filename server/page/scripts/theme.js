// Before the first paint, so that a dark page does not flash white.
(() => {
  try {
    const theme = JSON.parse(localStorage.getItem("ggserve.theme"));
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch { /* storage is off or holds something else */ }
})();
