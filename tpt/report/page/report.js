"use strict";
// Sorting, filtering, the theme and the picture viewer. The page reads without any of it.
(() => {
  const root = document.documentElement;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const find = (id) => document.getElementById(id);
  root.classList.add("js");

  // --- theme: the system's, until the button says otherwise ---
  const dark = matchMedia("(prefers-color-scheme: dark)");
  find("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // --- tables: a click on a head sorts down, up, and back to the order of the run ---
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(head, column));
    });

    const sort = (head, column) => {
      const numbers = head.dataset.sort === "number";
      const steps = numbers ? ["none", "descending", "ascending"] : ["none", "ascending", "descending"];
      const order = steps[(steps.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", order);
      table.classList.toggle("sorted", order !== "none");
      const sign = order === "ascending" ? 1 : -1;
      const keys = new Map(rows.map((row) => [row, read(row.cells[column], numbers)]));
      const compare = (one, other) => {
        const [a, b] = [keys.get(one), keys.get(other)];
        if (a === null || b === null) return (a === null) - (b === null); // without number: last
        return sign * (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      };
      body.append(...(order === "none" ? rows : [...rows].sort(compare)));
    };
  }

  function read(cell, numbers) {
    if (!numbers) return cell.textContent.trim();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  }

  // --- filters: each form acts on its own section ---
  for (const form of all("form.filter")) {
    const section = find(form.getAttribute("data-for")); // form.dataset is its select
    const items = all("[data-item]", section);
    const marks = all("svg g[data-method]", section);
    const counted = items.filter((item) => "method" in item.dataset);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => {
      const wanted = Object.fromEntries(new FormData(form));
      const fits = (data) =>
        Object.entries(wanted).every(([key, value]) => !value || !(key in data) || data[key] === value);
      items.forEach((item) => (item.hidden = !fits(item.dataset)));
      marks.forEach((mark) => mark.classList.toggle("off", !fits({ method: mark.dataset.method })));
      for (const part of all("details:has(> .dotrow)", section)) {
        part.hidden = all(".dotrow[data-item]:not([hidden])", part).length === 0;
        if (wanted.dataset && !part.hidden) part.open = true;
      }
      const shown = counted.filter((item) => !item.hidden).length;
      form.querySelector("output").value =
        shown === counted.length ? "" : `${shown} of ${counted.length} shown`;
    });
  }

  // --- pictures: a dialog with the whole item, arrow keys, Escape ---
  const viewer = find("viewer");
  const items = all(".gallery .item");
  let current = null;

  const open = (item) => {
    current = item;
    const shown = items.filter((other) => !other.hidden);
    const copy = item.cloneNode(true);
    copy.querySelector(".open").remove();
    find("viewer-title").textContent = `${shown.indexOf(item) + 1} of ${shown.length}`;
    find("viewer-body").replaceChildren(copy);
    find("viewer-body").scrollTop = 0;
    if (!viewer.open) viewer.showModal();
  };
  const step = (by) => {
    const shown = items.filter((item) => !item.hidden);
    open(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
  };
  for (const item of items) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "open";
    const label = item.querySelector("h3 bdi").textContent;
    button.setAttribute("aria-label", `Open ${label}, ${item.querySelector(".key").textContent}`);
    button.addEventListener("click", () => open(item));
    item.append(button);
  }
  find("viewer-back").addEventListener("click", () => step(-1));
  find("viewer-next").addEventListener("click", () => step(1));
  find("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("close", () => {
    current?.querySelector(".open").focus();
    find("viewer-body").replaceChildren();
  });

  // --- the numbers as a file ---
  find("save").addEventListener("click", () => {
    const link = document.createElement("a");
    const text = JSON.stringify(JSON.parse(find("results").textContent), null, 1) + "\n";
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "results.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  // --- where in the page one is; on paper everything is open ---
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) {
          links.forEach((link) => link.removeAttribute("aria-current"));
          links.get(target.id)?.setAttribute("aria-current", "true");
        }
      }
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  all("main > section").forEach((section) => watch.observe(section));
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    closed.forEach((part) => (part.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((part) => (part.open = false)));
})();
