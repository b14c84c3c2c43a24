// Shows the values under the pointer, below each chart.
"use strict";
for (const svg of document.querySelectorAll("svg[data-x]")) {
  const xs = svg.dataset.x.split(" ").map(Number);
  const texts = svg.dataset.text.split("|");
  const cursor = svg.querySelector(".cursor");
  const tip = svg.parentElement.querySelector(".tip");
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    let near = 0;
    xs.forEach((at, index) => {
      if (Math.abs(at - x) < Math.abs(xs[near] - x)) near = index;
    });
    cursor.setAttribute("transform", `translate(${xs[near]} 0)`);
    cursor.style.visibility = "visible";
    tip.textContent = texts[near];
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden";
    tip.textContent = "";
  });
}
