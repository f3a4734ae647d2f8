'use strict';
// Sorting of tables and copying of their text; a page without JavaScript keeps every number and loses only these.
(() => {
  for (const button of document.querySelectorAll('table.sortable thead th button')) {
    button.addEventListener('click', () => {
      const head = button.parentElement, column = columnOf(head), table = head.closest('table');
      // A row with others folded under it is a body of its own.
      const isFolded = table.tBodies.length > 1, parts = [...(isFolded ? table.tBodies : table.tBodies[0].rows)];
      const down = head.getAttribute('aria-sort') !== 'descending';
      for (const other of head.closest('thead').querySelectorAll('th')) other.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const rows = parts.map((part, order) => ({ part, order, value: valueOf((isFolded ? part.rows[0] : part).cells[column]) }));
      rows.sort((one, two) => compare(one.value, two.value, down) || one.order - two.order);
      (isFolded ? table : table.tBodies[0]).append(...rows.map((entry) => entry.part));
    });
  }
  function columnOf(head) {
    let column = 0;
    for (const other of head.parentElement.cells) { if (other === head) return column; column += other.colSpan; }
    return column;
  }
  function valueOf(cell) {
    if (!cell.classList.contains('number')) return cell.textContent.trim();
    return cell.dataset.value === undefined || cell.dataset.value === '' ? null : Number(cell.dataset.value);
  }
  // Cells without a value stay at the end, whichever way the column is sorted.
  function compare(one, two, down) {
    if (one === null || two === null) return (one === null) - (two === null);
    const order = typeof one === 'number' ? one - two : one.localeCompare(two);
    return down ? -order : order;
  }
  for (const button of document.querySelectorAll('button.fold')) {
    const steps = [...button.closest('tbody').rows].slice(1);
    const fold = (isOpen) => {
      button.setAttribute('aria-expanded', String(isOpen));
      for (const row of steps) row.hidden = !isOpen;
    };
    button.hidden = false;
    button.addEventListener('click', () => fold(button.getAttribute('aria-expanded') !== 'true'));
    fold(false);
  }
  for (const button of document.querySelectorAll('button[data-copy]')) {
    button.hidden = false;
    button.addEventListener('click', async () => {
      const area = document.getElementById(button.dataset.copy);
      area.closest('details').open = true;
      try {
        await navigator.clipboard.writeText(area.value);
      } catch {  // no clipboard on plain http and from disk in some browsers
        area.select();
        document.execCommand('copy');
      }
      button.textContent = 'Copied';
    });
  }
})();
