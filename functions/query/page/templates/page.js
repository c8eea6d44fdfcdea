// The page is whole without this. It saves a reload while products are made, and a click for similar layers and models, and
// for what an answer stands on.
"use strict";
const POLL_MS = 3000;

async function json(url) {
  const answer = await fetch(url + (url.includes("?") ? "&" : "?") + "format=json");
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
}

function cell(row, text, kind = "td") {
  const made = document.createElement(kind);
  made.textContent = text;
  row.append(made);
  return made;
}

function percent(share) {
  return share === null ? "" : (100 * share).toFixed(1) + " %";
}

function listed(hits, label, names, cells) {
  const region = document.createElement("div");
  region.className = "scroll";
  region.tabIndex = 0;
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", label);
  const list = document.createElement("table");
  region.append(list);
  list.className = "list";
  const head = list.createTHead().insertRow();
  for (const name of ["Model", ...names]) cell(head, name, "th").scope = "col";
  const body = list.createTBody();
  for (const hit of hits) {
    const row = body.insertRow();
    const link = document.createElement("a");
    const subject = [hit.dataset, hit.model, hit.version].join("/");
    link.href = "/models/" + subject;
    link.textContent = subject;
    cell(row, "").append(link);
    cells(row, hit);
  }
  return region;
}

const ABOVE = "Above untrained"; // what a similarity is worth: the share of untrained ones that is lower

function layerCells(row, hit) {
  cell(row, hit.layer);
  cell(row, hit.score.toFixed(2)).className = "n";
  cell(row, percent(hit.judgement?.percentile_untrained ?? null)).className = "n";
  cell(row, percent(hit.test_accuracy)).className = "n";
}

function modelCells(row, hit) {
  cell(row, hit.score.toFixed(2)).className = "n";
  cell(row, percent(hit.percentile_untrained)).className = "n";
  cell(row, percent(hit.test_accuracy)).className = "n";
  cell(row, hit.kinship).className = "why";
}

async function showAlike(place) {
  const columns = ["Likeness", ABOVE, "Accuracy", "By its weights"];
  try {
    const answer = await json(place.dataset.alike + "?k=5");
    if (answer.hits.length) place.before(listed(answer.hits, "The models most like it", columns, modelCells));
    if (answer.better) {
      const title = document.createElement("h3");
      title.textContent = "The nearest that is more accurate on the same test images";
      place.before(title, listed([answer.better], title.textContent, columns, modelCells));
    } else if (answer.reason) place.before(answer.reason);
  } catch {
    // the link is there
  }
}

async function showSimilar(details) {
  if (!details.open || details.dataset.asked) return;
  details.dataset.asked = "yes";
  const place = details.querySelector(".similar");
  try {
    const answer = await json(details.dataset.similar + "?k=5");
    if (answer.hits.length) place.before(listed(answer.hits, place.textContent, ["Layer", "Similarity", ABOVE, "Accuracy"], layerCells));
    else if (answer.reason) place.before(answer.reason);
  } catch {
    delete details.dataset.asked;
  }
}

async function showExplained(link) {
  const section = link.closest("section");
  const status = section.querySelector("[role=status]");
  status.textContent = "The model is being asked.";
  try {
    const answer = await fetch(link.href, { headers: { accept: "text/html" } });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const details = fresh.getElementById("explanation");
    const said = details ? [...details.children] : [...fresh.querySelectorAll("main p:not(:last-child)")];
    section.querySelector(".answered").replaceChildren(...said);
    for (const heading of section.querySelectorAll(".answered h2, .answered h3")) {
      const lower = document.createElement(heading.matches("h2") ? "h3" : "h4");
      lower.append(...heading.childNodes);
      heading.replaceWith(lower);
    }
    status.textContent = details ? "The model has answered." : "There is no answer.";
  } catch {
    status.textContent = "The server does not answer.";
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-explained]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  showExplained(link);
});

function prepare() {
  for (const details of document.querySelectorAll("details[data-similar]")) {
    details.addEventListener("toggle", () => showSimilar(details));
  }
  for (const place of document.querySelectorAll("[data-alike]")) showAlike(place);
}

function replace(fresh) {
  const open = [...document.querySelectorAll("details[open]")].map((one) => one.id);
  const shut = [...document.querySelectorAll("details:not([open])")].map((one) => one.id);
  const [focused, top] = [document.activeElement?.id, scrollY];
  const asking = document.querySelector("section.asking"); // with the picture that was chosen or drawn, and the answer
  if (asking) fresh.querySelector("section.asking")?.replaceWith(asking);
  document.querySelector("main").replaceWith(fresh);
  prepare();
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  for (const id of shut) document.getElementById(id)?.removeAttribute("open");
  if (location.hash) location.replace(location.hash); // the new element is not the target until it is gone to
  scrollTo(0, top);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function seen(answer) {
  const waiting = Object.entries(answer.products).filter(([, one]) => one.state === "computing");
  return answer.state + ":" + waiting.map(([name]) => name).join();
}

async function watch(url, before) {
  try {
    const answer = await json(url);
    const now = seen(answer);
    if (now !== before) {
      const answer = await fetch(url, { headers: { accept: "text/html" } });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      replace(fresh.querySelector("main"));
      document.getElementById("news").textContent = answer.state === "computing" ? "More is there now." : "All is there.";
    }
    before = now;
    if (answer.state !== "computing") return;
  } catch {
    // the next round may find it again
  }
  setTimeout(watch, POLL_MS, url, before);
}

async function renew(url) {
  try {
    if ((await json(url)).template_reason?.code !== "asking") {
      const answer = await fetch(url, { headers: { accept: "text/html" } });
      replace(new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main"));
      document.getElementById("news").textContent = "The language model has answered.";
      return;
    }
  } catch {
    // the next round may find it again
  }
  setTimeout(renew, POLL_MS, url);
}

prepare();
if (document.body.dataset.renew) renew(document.body.dataset.renew);
if (document.body.dataset.watch) watch(document.body.dataset.watch, document.body.dataset.seen);
