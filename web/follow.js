// Keeps the end of the conversation in sight, but does not pull away who reads further up.

import {$} from "./dom.js";

const NEAR_PX = 40;  // from the end counts as there, for who comes down

let following = true;
let place = 0;  // where it was scrolled to: a hidden element forgets

export function scrollDown() {
  if (following) $("messages").scrollTop = $("messages").scrollHeight;
}

/** From now on, wherever it is scrolled. */
export function follow() {
  following = true;
  scrollDown();
}

export function startFollowing() {
  const box = $("messages");
  box.addEventListener("scroll", () => {
    if (!box.clientHeight) return;  // hidden
    const left = box.scrollHeight - box.clientHeight - box.scrollTop;
    following = left < (box.scrollTop < place ? 2 : NEAR_PX);
    place = box.scrollTop;
  });
  // Shown again, or of another size.
  new ResizeObserver(() => {
    box.scrollTop = following ? box.scrollHeight : place;
  }).observe(box);
}
