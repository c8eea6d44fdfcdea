// The form works without this, and leads to a page of its own. With it the answer comes below the form, and pictures can
// be dropped and drawn. Everything is listened for on the document, as the page's content may be replaced.
"use strict";

function show(form, answered, ok) {
  const section = form.closest("section");
  const fresh = new DOMParser().parseFromString(answered, "text/html");
  const place = section.querySelector(".answered");
  const title = fresh.querySelector("h1");
  const said = title ? title.textContent : "There is no answer.";
  const details = ok ? [...fresh.getElementById("prediction").children] : [...fresh.querySelectorAll("main p:not(:last-child)")];
  place.replaceChildren(...details.filter((one) => one !== title));
  for (const heading of place.querySelectorAll("h2")) {
    const lower = document.createElement("h3");
    lower.append(...heading.childNodes);
    heading.replaceWith(lower);
  }
  section.querySelector("[role=status]").textContent = said;
}

async function ask(form, picture) {
  const status = form.closest("section").querySelector("[role=status]");
  status.textContent = "The model is being asked.";
  try {
    const answer = await fetch(form.action, { method: "POST", body: picture, headers: { accept: "text/html" } });
    show(form, await answer.text(), answer.ok);
  } catch {
    status.textContent = "The server does not answer.";
  }
}

function brush(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const dark = canvas.dataset.ground === "dark";
  if (!canvas.dataset.begun) {
    canvas.dataset.begun = "yes";
    context.fillStyle = dark ? "#000" : "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.strokeStyle = dark ? "#fff" : "#000";
  context.lineWidth = Math.max(1, Math.max(canvas.width, canvas.height) / 12);
  context.lineCap = context.lineJoin = "round";
  return context;
}

function place(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
}

let last = null;
document.addEventListener("pointerdown", (event) => {
  if (!event.target.matches("canvas.drawn")) return;
  event.preventDefault();
  last = place(event.target, event);
  stroke(event);
});
document.addEventListener("pointermove", (event) => {
  if (last && event.target.matches("canvas.drawn")) stroke(event);
});
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => (last = null));

function stroke(event) {
  const context = brush(event.target);
  const next = place(event.target, event);
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(...next);
  context.stroke();
  last = next;
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form.predict")) return;
  event.preventDefault();
  ask(event.target, event.target.elements.file.files[0]);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-drawing]");
  if (!button) return;
  const canvas = button.closest("section").querySelector("canvas.drawn");
  if (button.dataset.drawing === "clear") {
    delete canvas.dataset.begun;
    brush(canvas);
  } else {
    brush(canvas);
    canvas.toBlob((picture) => ask(button.closest("section").querySelector("form.predict"), picture), "image/png");
  }
});
document.addEventListener("dragover", (event) => {
  if (event.target.closest?.("section.asking")) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  const form = event.target.closest?.("section.asking")?.querySelector("form.predict");
  if (!form || !event.dataTransfer.files.length) return;
  event.preventDefault();
  form.elements.file.files = event.dataTransfer.files;
  form.requestSubmit();
});
