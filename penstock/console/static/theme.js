// Before anything is drawn: the theme that was chosen here, if one was. Without it, the system's.
document.documentElement.dataset.theme = localStorage.getItem("penstock-theme") ?? "system";
