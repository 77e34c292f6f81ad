"use strict";
const filters = ["split", "group", "outcome"].map((name) => document.getElementById(name));
const cards = [...document.querySelectorAll(".card")];
const toggle = document.getElementById("toggle");
function filter() {
  let shown = 0;
  for (const card of cards) {
    card.hidden = filters.some((select) => select.value !== "" && card.dataset[select.id] !== select.value);
    shown += !card.hidden;
  }
  document.getElementById("shown").textContent = shown + (shown === 1 ? " image" : " images");
}
for (const select of filters) select.addEventListener("change", filter);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
for (const image of document.querySelectorAll("img[data-toggles]")) image.dataset.over = image.src;
toggle.addEventListener("click", () => {
  const over = toggle.getAttribute("aria-pressed") !== "true";
  toggle.setAttribute("aria-pressed", String(over));
  for (const image of document.querySelectorAll("img[data-toggles]")) {
    image.src = over ? image.dataset.over : image.closest(".panels").querySelector("img").src;
  }
});
filter();
