"use strict";

/**
 * Keeps a page up to date that a server on this machine makes: fetches it anew, and replaces the sections that differ.
 * Others keep what the reader did in them, and so does the one in which the reader's focus is, until it is left.
 */
(() => {
  const sectionsOf = (page) => [...page.querySelectorAll("main > section")];
  const headingsOf = (sections) => sections.map((section) => section.querySelector("h2").textContent).join("\n");
  // Before other scripts add their parts to the sections.
  let known = sectionsOf(document).map((section) => section.outerHTML);

  function replace(fetched) {
    const [shown, wanted] = [sectionsOf(document), sectionsOf(fetched)];
    if (headingsOf(shown) !== headingsOf(wanted)) {
      location.reload(); // The table of contents has to change too.
      return;
    }
    known = wanted.map((section, i) => {
      const text = section.outerHTML;
      if (known[i] === text) return text;
      if (shown[i].contains(document.activeElement)) return known[i];
      const added = document.importNode(section, true);
      shown[i].replaceWith(added);
      infomaxPage.startIn(added);
      return text;
    });
    const paragraphs = (page) => [...page.querySelectorAll("main > p:not([role])")];
    const texts = paragraphs(fetched);
    paragraphs(document).forEach((paragraph, i) => {
      if (texts[i] && texts[i].textContent !== paragraph.textContent) paragraph.textContent = texts[i].textContent;
    });
  }

  infomaxPage.each("main[data-refresh]", (main) => {
    const wait = 1000 * Number(main.dataset.refresh);
    const state = infomaxPage.make("p", "caption");
    state.setAttribute("role", "note");
    main.querySelector("h1").after(state);

    async function look() {
      try {
        const answer = await fetch(main.dataset.address || location.href, { cache: "no-store" });
        if (!answer.ok) throw new Error(String(answer.status));
        replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
        state.textContent = `As of ${new Date().toLocaleTimeString()}.`;
      } catch {
        state.textContent = "The server does not answer; the page shows what it said last.";
      }
      setTimeout(look, wait);
    }

    setTimeout(look, wait);
  });
})();
