"use strict";
// What answers the pointer and the keyboard. Without it the page is whole: titles of marks, tables, all charts.
for (const chart of document.querySelectorAll("svg.chart")) {
  const marks = [...chart.querySelectorAll(".mark")];
  const tip = chart.closest("figure").querySelector(".tip");
  let at = -1;
  const show = (place) => {
    marks[at]?.classList.remove("on");
    at = place;
    marks[at]?.classList.add("on");
    tip.textContent = marks[at]?.dataset.tip ?? "";
  };
  chart.addEventListener("pointerover", (event) => {
    const place = marks.indexOf(event.target);
    if (place >= 0) show(place);
  });
  chart.addEventListener("pointerleave", () => show(-1));
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined && event.key !== "Escape") return;
    event.preventDefault();
    show(step === undefined ? -1 : (at + step + marks.length) % marks.length);
  });
  chart.addEventListener("blur", () => show(-1));
}
for (const choose of document.querySelectorAll(".choose")) {
  const figures = [...choose.parentElement.querySelectorAll("figure")];
  const select = choose.querySelector("select");
  const show = () => figures.forEach((figure, place) => { figure.hidden = place !== select.selectedIndex; });
  choose.hidden = false;
  select.addEventListener("change", show);
  show();
}
const plain = (cell) => cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [plain(a.cells[column]), plain(b.cells[column])];
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
