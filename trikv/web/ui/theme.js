// The colours that were chosen last, before anything is drawn. A plain script: a module would come too late.
try {
  const chosen = localStorage.getItem("trikv-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // No storage: as the system has them.
}
