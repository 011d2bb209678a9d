"use strict";
const SHORT = 600; // characters of a document that are shown at first
const one = (id) => document.getElementById(id);
const names = ["left", "right"];
let asked = 0; // answers to older questions are dropped

function made(tag, className, text) {
  const found = document.createElement(tag);
  if (className) found.className = className;
  if (text !== undefined) found.textContent = text; // never HTML: texts may be anything
  return found;
}

function tell(text, wrong) {
  one("status").textContent = text;
  one("status").className = wrong ? "wrong" : "";
}

async function ask(path, body) {
  const headers = {}, token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const wish = { headers, cache: "no-store" };
  if (body) Object.assign(wish, { method: "POST", body: JSON.stringify(body) });
  const answer = await fetch(path, wish);
  if (answer.status === 401) one("door").hidden = false;
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error?.message ?? content.error ?? `status ${answer.status}`);
  return content;
}

function showText(place, parts, longest) {
  let left = longest;
  place.replaceChildren();
  const direction = made("bdi"); // what turns writing around ends with this text
  for (const [text, marked] of parts) {
    if (left <= 0) break;
    const shown = text.slice(0, left);
    left -= shown.length;
    direction.append(marked ? made("mark", "", shown) : document.createTextNode(shown));
  }
  if (left <= 0) direction.append("\u2026");
  place.append(direction);
}

function item(hit, number, best, others) {
  const found = made("li"), head = made("h3"), text = made("p", "text");
  head.append(made("span", "rank", `${number}.`));
  head.append(made("bdi", "", `Document ${hit.id}`), made("span", "score", `score ${hit.score.toFixed(4)}`));
  if (others) {
    const place = others.findIndex((other) => other.row === hit.row);
    head.append(made("span", "other", place < 0 ? "not on the other side" : `other side: ${place + 1}.`));
  }
  const bar = made("div", "bar"), filled = made("div");
  filled.style.width = `${Math.max(0, Math.min(100, best > 0 ? (100 * hit.score) / best : 0))}%`;
  bar.setAttribute("aria-hidden", "true");
  bar.append(filled);
  found.append(head, bar, text);
  const length = hit.parts.reduce((sum, [part]) => sum + part.length, 0);
  showText(text, hit.parts, SHORT);
  if (length > SHORT) {
    const more = made("button", "more", `Show all of document ${hit.id}`);
    more.type = "button";
    more.addEventListener("click", () => {
      showText(text, hit.parts, Infinity);
      if (hit.cut) text.append("\u2026");
      more.remove();
    });
    found.append(more);
  }
  if (hit.terms.length) {
    const terms = made("p", "terms");
    for (const [word, weight] of hit.terms) terms.append(made("span", "", `${word} ${weight.toFixed(2)}`));
    found.append(terms);
  }
  return found;
}

function show(sides) {
  names.forEach((name, place) => {
    const side = sides[place], other = sides[1 - place];
    one(`${name}-name`).textContent = side.label;
    one(`${name}-note`).textContent = side.hits.length
      ? `${side.milliseconds} ms. Underlined: ${side.marked}.` : `${side.milliseconds} ms. Nothing found.`;
    const best = Math.max(...side.hits.map((hit) => hit.score));
    one(`${name}-list`).replaceChildren(...side.hits.map((hit, row) => item(hit, row + 1, best, other?.hits)));
  });
}

async function search() {
  const number = ++asked, query = one("query").value;
  const documents = one("documents").value.split("\n").filter((line) => line.trim());
  if (!query.trim()) return tell("Type a query first.", true);
  tell("Searching\u2026");
  try {
    const begun = performance.now();
    const body = { query, documents, top: one("top").valueAsNumber || 10, sides: names.map((name) => one(name).value) };
    const found = await ask("page/search", body);
    if (number !== asked) return;
    show(found.sides);
    const counts = found.sides.map((side) => side.hits.length).join(" and ");
    tell(`${counts} results from ${found.documents} documents in ${Math.round(performance.now() - begun)} ms.`);
  } catch (error) {
    if (number === asked) tell(`It did not work: ${error.message}.`, true);
  }
}

async function begin() {
  try {
    const found = await ask("page/choices");
    one("door").hidden = true;
    for (const [place, name] of names.entries()) {
      one(name).replaceChildren(...found.choices.map(({ key, label }) => new Option(label, key)));
      const last = found.choices.length - 1;
      one(name).selectedIndex = place ? Math.min(found.choices.findIndex(({ key }) => key === "words"), last) : 0;
    }
    if (!found.documents) one("own").open = true;
    tell(found.documents ? `${found.documents} documents are ready.` : "Type documents below, then a query.");
  } catch (error) {
    tell(one("door").hidden ? `It did not work: ${error.message}.` : "This server wants its token.", true);
  }
}

one("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
one("form").addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target.id === "query") {
    event.preventDefault();
    asked += 1;
    one("query").value = "";
    for (const name of names) one(`${name}-list`).replaceChildren();
    tell("");
  }
  if (event.key === "Enter" && event.target.id === "token") {
    event.preventDefault();
    one("enter").click();
  }
});
one("enter").addEventListener("click", () => {
  sessionStorage.setItem("token", one("token").value); // of this tab; sent as a header only
  one("token").value = "";
  begin().then(() => one("query").focus());
});
begin();
