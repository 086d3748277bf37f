// Sort by a column: best-known order first (numbers downwards, names upwards), the other way on the next click.
document.querySelectorAll("#results thead button").forEach((button, column) => {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const before = heading.getAttribute("aria-sort");
    const down = before ? before === "ascending" : column > 0;
    document.querySelectorAll("#results thead th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column]?.dataset.value ?? "";
    const compare = (a, b) => (column ? value(a) - value(b) : value(a).localeCompare(value(b)));
    const body = document.querySelector("#results tbody");
    const known = [...body.rows].filter((row) => value(row) !== "");
    const unknown = [...body.rows].filter((row) => value(row) === "");
    known.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    body.append(...known, ...unknown);
  });
});
