"use strict";

/**
 * Enlarges the image of a gallery that is chosen by a click, Enter or Space, in a dialog with its name and details.
 * Arrows and buttons go to the next one, Escape closes, and the focus then is on the image that was shown last.
 */
(() => {
  let viewer = null;

  class Viewer {
    constructor() {
      this.dialog = infomaxPage.make("dialog", "viewer");
      this.image = infomaxPage.make("img");
      this.words = infomaxPage.make("div", "viewer-words");
      this.words.setAttribute("aria-live", "polite");
      this.count = infomaxPage.make("span", "count");
      const line = infomaxPage.make("div", "viewer-line");
      const buttons = [
        ["Previous", () => this.move(-1)], ["Next", () => this.move(1)], ["Close", () => this.dialog.close()],
      ];
      line.append(this.count, ...buttons.map(([name, act]) => {
        const button = infomaxPage.make("button", "button", name);
        button.addEventListener("click", act);
        return button;
      }));
      this.dialog.append(this.image, this.words, line);
      this.dialog.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
        if (event.key in steps) this.move(steps[event.key]);
        else if (event.key === "Home") this.show(0);
        else if (event.key === "End") this.show(this.items.length - 1);
        else return;
        event.preventDefault();
      });
      // A click beside the dialog's content is one on the dialog itself.
      this.dialog.addEventListener("click", (event) => {
        const box = this.dialog.getBoundingClientRect();
        const isInside = event.clientX >= box.left && event.clientX <= box.right
          && event.clientY >= box.top && event.clientY <= box.bottom;
        if (event.target === this.dialog && !isInside) this.dialog.close();
      });
      this.dialog.addEventListener("close", () => this.items[this.index].querySelector(".enlarge").focus());
      document.body.append(this.dialog);
    }

    open(items, index) {
      this.items = items;
      this.show(index);
      this.dialog.showModal();
    }

    move(step) {
      this.show((this.index + step + this.items.length) % this.items.length);
    }

    show(index) {
      this.index = index;
      const item = this.items[index];
      const name = item.querySelector(".name").textContent;
      this.image.src = item.querySelector("img").src;
      this.image.alt = name;
      this.dialog.setAttribute("aria-label", name || "Image");
      const heading = infomaxPage.make("h2");
      const isolated = infomaxPage.make("bdi", "", name);
      heading.append(isolated);
      const mark = item.querySelector(".mark");
      const details = [...(mark ? [mark] : []), ...item.querySelectorAll(".detail")];
      const lines = details.map((detail) => infomaxPage.make("p", detail.className, detail.textContent));
      this.words.replaceChildren(heading, ...lines);
      this.count.textContent = `${index + 1} of ${this.items.length}`;
    }
  }

  infomaxPage.each("[data-gallery]", (gallery) => {
    const items = [...gallery.querySelectorAll("[data-thumbnail]")];
    items.forEach((item, index) => {
      const image = item.querySelector("img");
      const button = infomaxPage.make("button", "enlarge");
      button.setAttribute("aria-label", `Enlarge ${item.querySelector(".name").textContent}`);
      image.replaceWith(button);
      button.append(image);
      button.addEventListener("click", () => {
        viewer ??= new Viewer();
        viewer.open(items, index);
      });
    });
  });
})();
