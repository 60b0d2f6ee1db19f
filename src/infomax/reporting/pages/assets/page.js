"use strict";

/**
 * Does what every page needs: the choice of the colours, the table of contents, boxes that scroll, commands that are
 * copied. Other scripts give it what they start, for the page as it is and for sections that a server replaces:
 *
 *     infomaxPage.each("[data-gallery]", (element) => { ... });
 *
 * The event "infomax-colours" on the document says that the colours have changed.
 */
const infomaxPage = (() => {
  const KEY = "infomax-colours";
  const root = document.documentElement;
  const starters = [];

  function each(selector, start) {
    starters.push([selector, start]);
  }

  function startIn(element) {
    for (const [selector, start] of starters) {
      if (element.matches && element.matches(selector)) start(element);
      for (const inner of element.querySelectorAll(selector)) start(inner);
    }
  }

  /** Returns a new element with a class and a text. */
  function make(tag, kind = "", text = "") {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text) element.textContent = text;
    if (tag === "button") element.type = "button";
    return element;
  }

  // Storage may be forbidden, as in a page from a file: then the choice lasts as long as the page.
  function storedColours() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  function setColours(choice) {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
    document.dispatchEvent(new Event("infomax-colours"));
  }

  setColours(storedColours());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new Event("infomax-colours"));
  });

  each("[data-theme-switch]", (fieldset) => {
    const chosen = root.dataset.theme || "system";
    for (const input of fieldset.querySelectorAll("input")) {
      input.checked = input.value === chosen;
      input.addEventListener("change", () => {
        setColours(input.value);
        try {
          localStorage.setItem(KEY, input.value);
        } catch {
          // It lasts as long as the page.
        }
      });
    }
    fieldset.hidden = false;
  });

  // The section that is read is marked in the table of contents: the last one that begins near the upper edge. At
  // the end of the page no later one can come up there, so that the one that a link has led to counts, or the last one.
  function markSection(links) {
    const sections = [...document.querySelectorAll("main > section")];
    const top = (section) => section.getBoundingClientRect().top;
    const begun = sections.filter((section) => top(section) <= innerHeight / 6);
    let current = begun[begun.length - 1] || sections[0];
    if (scrollY > 0 && scrollY + innerHeight >= root.scrollHeight - 2) {
      const target = sections.find((section) => `#${section.id}` === location.hash);
      current = target && top(target) >= 0 ? target : sections[sections.length - 1];
    }
    for (const link of links) {
      if (!current || link.hash !== `#${current.id}`) link.removeAttribute("aria-current");
      else if (!link.hasAttribute("aria-current")) {
        link.setAttribute("aria-current", "true");
        // The list scrolls on its own; the page must not.
        const list = link.closest("nav");
        const isShown = link.offsetTop >= list.scrollTop && link.offsetTop < list.scrollTop + list.clientHeight - 40;
        if (!isShown) list.scrollTop = link.offsetTop - list.clientHeight / 2;
      }
    }
  }

  each(".contents-wide", (nav) => {
    const links = [...nav.querySelectorAll("a")];
    let isAwaited = false;
    const mark = () => {
      if (isAwaited) return;
      isAwaited = true;
      requestAnimationFrame(() => {
        isAwaited = false;
        markSection(links);
      });
    };
    for (const event of ["scroll", "resize", "hashchange"]) addEventListener(event, mark, { passive: true });
    mark();
  });

  each(".contents-narrow", (nav) => {
    nav.addEventListener("click", (event) => {
      if (event.target.closest("a")) nav.querySelector("details").open = false;
    });
  });

  // A box that scrolls can be reached by Tab, to be scrolled by the arrows; one that does not scroll is no stop.
  const resized = "ResizeObserver" in window ? new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
      if (scrolls) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  }) : null;
  each("[data-scroll]", (box) => {
    if (resized) resized.observe(box);
    else box.tabIndex = 0;
  });

  async function copy(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      const range = document.createRange();
      range.selectNodeContents(element);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      return document.execCommand("copy");
    }
  }

  each("[data-commands]", (figure) => {
    const line = make("div", "copy-line");
    const button = make("button", "button", "Copy");
    const state = make("span");
    state.setAttribute("role", "status");
    button.addEventListener("click", async () => {
      state.textContent = "";
      state.textContent = await copy(figure.querySelector("code")) ? "Copied." : "Selected: copy it with Ctrl+C.";
    });
    line.append(button, state);
    figure.append(line);
  });

  document.addEventListener("DOMContentLoaded", () => startIn(document));
  return { each, startIn, make };
})();
