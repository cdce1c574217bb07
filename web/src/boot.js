// Runs before the first paint, so that a reader of the dark theme is not blinded first. Must stay tiny: it blocks.
try {
  const theme = localStorage.getItem('drover.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // The browser keeps nothing: the theme follows the system.
}
