const find = document.getElementById("find");
const cards = [...document.querySelectorAll("article")];
const links = [...document.querySelectorAll("nav a:not(.group)")];
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = new Set();
  for (const card of cards) {
    const text = card.textContent.toLowerCase();
    card.hidden = !words.every((word) => text.includes(word));
    if (!card.hidden) shown.add("#" + card.id);
  }
  for (const link of links) link.hidden = !shown.has(link.getAttribute("href"));
  document.getElementById("none").hidden = shown.size > 0;
});
