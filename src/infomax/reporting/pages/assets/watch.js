"use strict";

/**
 * Keeps a page up to date that a server on this machine makes: asks every few seconds for its parts, and replaces those
 * that have changed. Nothing is asked while the page is hidden. A chart whose values are being looked at waits until that
 * ends; what the reader has opened, hidden, sorted or focused stays so.
 */
infomaxPage.each("main[data-refresh]", (main) => {
  const MOST_SECONDS = 30;
  const PATIENCE = 10_000;  // milliseconds that an answer may take
  const seconds = Number(main.dataset.refresh);
  const state = infomaxPage.make("p", "caption");
  const lost = infomaxPage.make("div", "notice notice-warning");
  lost.setAttribute("role", "status");
  main.querySelector("h1").after(lost, state);
  lost.hidden = true;
  let latest = null;
  let tag = "";
  let failures = 0;
  let timer = 0;

  function isHeld(part) {
    if (!part.querySelector("[data-chart]")) return false;
    return part.matches(":hover") || part.querySelector("[data-plot]:focus-visible") !== null;
  }

  /** Returns what the reader has done in a part, as a function that does it again in the part's new content. */
  function remember(part) {
    const find = (selector) => [...part.querySelectorAll(selector)];
    const focusable = "button, summary, a, input, [data-plot]";
    const opened = find("details").map((details) => details.open);
    const isHidden = (button) => button.getAttribute("aria-pressed") === "false";
    const hidden = find("[data-legend] button").map(isHidden);
    const order = find("th").map((head) => head.getAttribute("aria-sort"));
    const focused = find(focusable).indexOf(document.activeElement);
    return () => {
      find("details").forEach((details, i) => {
        details.open = opened[i] || false;
      });
      find("[data-legend] button").forEach((button, i) => {
        if (hidden[i]) button.click();
      });
      find("th").forEach((head, i) => {
        for (let press = 0; order[i] && press < 2 && head.getAttribute("aria-sort") !== order[i]; press++) {
          head.querySelector("button").click();
        }
      });
      if (focused >= 0 && find(focusable)[focused]) find(focusable)[focused].focus({ preventScroll: true });
    };
  }

  function replace(part, version, content) {
    const repeat = remember(part);
    const template = document.createElement("template");
    template.innerHTML = content;
    part.replaceChildren(template.content);
    part.dataset.version = version;
    infomaxPage.startIn(part);
    repeat();
  }

  /** Gives a section the parts that the server has named, in their order. */
  function arrange(section, named) {
    const parts = new Map([...section.querySelectorAll(":scope > [data-part]")].map((part) => [part.dataset.part, part]));
    const keys = new Set(named.map(([key]) => key));
    for (const [key, part] of parts) if (!keys.has(key)) part.remove();
    let previous = section.querySelector(":scope > h2");
    for (const [key, version, content] of named) {
      const part = parts.get(key) || infomaxPage.make("div");
      part.dataset.part = key;
      if (previous.nextElementSibling !== part) previous.after(part);
      if (part.dataset.version !== version && !isHeld(part)) replace(part, version, content);
      previous = part;
    }
  }

  async function ask() {
    const headers = tag ? { "If-None-Match": tag } : {};
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(main.dataset.address, { headers, signal, cache: "no-store" });
    if (answer.status === 304) return;
    if (!answer.ok) throw new Error(String(answer.status));
    latest = await answer.json();
    tag = answer.headers.get("ETag") || "";
  }

  async function look() {
    timer = -1;
    try {
      await ask();
      failures = 0;
      state.textContent = `As of ${new Date().toLocaleTimeString()}.`;
    } catch {
      failures += 1;
    }
    if (lost.hidden === failures > 0) {
      lost.hidden = !failures;
      lost.replaceChildren(infomaxPage.make("p", "", failures ? "Connection lost, trying again." : ""));
    }
    const sections = main.querySelectorAll(":scope > section");
    if (latest) {
      document.title = latest.title;
      sections.forEach((section, i) => arrange(section, latest.sections[i] || []));
    }
    timer = document.hidden ? 0 : setTimeout(look, 1000 * Math.min(MOST_SECONDS, seconds * 2 ** failures));
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden && timer > 0) {
      clearTimeout(timer);
      timer = 0;
    } else if (!document.hidden && timer === 0) {
      look();
    }
  });
  timer = setTimeout(look, 1000 * seconds);
});
