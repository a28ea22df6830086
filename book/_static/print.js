// Paper is white and has no buttons: before a page is printed it takes the light theme
// and opens what is folded, and afterwards it is as it was.
(function () {
  "use strict";

  const page = document.documentElement;
  let theme;
  let opened = [];

  addEventListener("beforeprint", () => {
    theme = page.dataset.theme;
    page.dataset.theme = "light";
    opened = [...document.querySelectorAll("details:not([open])")].filter(
      (details) => !details.closest("#setup"),
    );
    for (const details of opened) details.open = true;
  });

  addEventListener("afterprint", () => {
    page.dataset.theme = theme;
    for (const details of opened) details.open = false;
  });
})();
