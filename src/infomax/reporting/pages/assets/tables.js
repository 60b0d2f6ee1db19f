"use strict";

/** Sorts tables by the numbers behind their cells, or by their texts; a third press brings the first order back. */
infomaxPage.each("table[data-sortable]", (table) => {
  const body = table.tBodies[0];
  const original = [...body.rows];
  if (original.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator("en", { numeric: true });

  function compare(column) {
    return (a, b) => {
      const [first, second] = [a.cells[column], b.cells[column]];
      const [x, y] = [first.dataset.value, second.dataset.value];
      if (x !== undefined && y !== undefined) return Number(x) - Number(y);
      return collator.compare(first.textContent, second.textContent);
    };
  }

  /** Returns the rows in order; those without a number in a column of numbers, or without a text, stand last. */
  function sorted(column, direction) {
    const hasNumbers = original.some((row) => row.cells[column].dataset.value !== undefined);
    const isEmpty = (row) => {
      const cell = row.cells[column];
      return hasNumbers ? cell.dataset.value === undefined : cell.textContent === "";
    };
    const filled = original.filter((row) => !isEmpty(row)).sort(compare(column));
    if (direction === "descending") filled.reverse();
    return [...filled, ...original.filter(isEmpty)];
  }

  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const button = infomaxPage.make("button", "sort");
    button.append(...head.childNodes);
    head.append(button);
    const hasNumbers = original.some((row) => row.cells[column].dataset.value !== undefined);
    const order = hasNumbers ? ["descending", "ascending", null] : ["ascending", "descending", null];
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(head.getAttribute("aria-sort")) + 1) % order.length];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next);
      body.append(...(next ? sorted(column, next) : original));
    });
  });
});
