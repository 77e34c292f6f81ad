"use strict";
const byId = (id) => document.getElementById(id);

// The gallery's filters.
const filters = ["split", "group", "outcome"].map(byId);
const cards = [...document.querySelectorAll(".card")];
const toggle = byId("toggle");
function filter() {
  let shown = 0;
  for (const card of cards) {
    card.hidden = filters.some((select) => select.value !== "" && card.dataset[select.id] !== select.value);
    shown += !card.hidden;
  }
  byId("shown").textContent = shown + (shown === 1 ? " image" : " images");
}
for (const select of filters) select.addEventListener("change", filter);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
for (const image of document.querySelectorAll("img[data-toggles]")) image.dataset.over = image.src;
toggle.addEventListener("click", () => {
  const over = toggle.getAttribute("aria-pressed") !== "true";
  toggle.setAttribute("aria-pressed", String(over));
  for (const image of document.querySelectorAll("img[data-toggles]")) {
    image.src = over ? image.dataset.over : image.closest(".panels").querySelector("img").src;
  }
});
filter();

// A picture, large. Without this script, its link makes it large in its card.
const large = byId("large");
let seen = null;
function show(link) {
  if (!link) return;
  seen = link;
  const image = link.querySelector("img"), card = link.closest(".card");
  byId("picture").src = image.src;
  byId("picture").alt = image.alt;
  byId("about").textContent = link.nextElementSibling.textContent;
  byId("of").textContent = `${card.dataset.group}, ${card.dataset.outcome}; ${card.querySelector(".path").textContent}`;
  if (!large.open) large.showModal();
}
function step(by) {
  const links = [...document.querySelectorAll(".card:not([hidden]) .panels a")];
  show(links[links.indexOf(seen) + by]);
}
for (const link of document.querySelectorAll(".panels a")) {
  link.addEventListener("click", (event) => { event.preventDefault(); show(link); });
}
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => large.close());
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
large.addEventListener("close", () => seen.focus());
large.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
});

// A setting of the sweep: its bars.
const settings = [...document.querySelectorAll("button[data-setting]")];
const tracks = [...document.querySelectorAll(".setting tbody tr")];
function showSetting(button) {
  for (const each of settings) each.setAttribute("aria-pressed", String(each.dataset.setting === button.dataset.setting));
  byId("setting").textContent = button.dataset.setting;
  button.dataset.values.split(" ").forEach((value, place) => {
    tracks[place].querySelector("i.mac").style.setProperty("--at", value === "-" ? "0" : value);
    tracks[place].querySelector("td.mac").textContent = value === "-" ? "–" : value;
  });
}
for (const button of settings) button.addEventListener("click", () => showSetting(button));
