// Before anything is drawn: the theme that was chosen, if one was. A plain script, so that no page flashes.
try {
  const theme = localStorage.getItem("herd.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // without storage the system's theme is used
}
