import {getJson, key} from "./api.js";
import {startChat} from "./chat.js";
import {startDashboard} from "./dashboard.js";
import {$, ask} from "./dom.js";

/** Asks for the API key. True if there is another one now. */
async function askForKey(why) {
  $("key-why").textContent = why;
  $("key-text").value = key.get();
  if (!(await ask($("key")))) return false;
  key.set($("key-text").value.trim());
  showModel();
  return true;
}

async function showModel() {
  try {
    const model = (await getJson("/v1/models")).data[0];
    $("model").textContent = `${model.id} · ${model.max_model_len.toLocaleString("en")} tokens`;
  } catch (error) {
    $("model").textContent = error.status === 401 ? "needs an API key" : error.message;
    if (error.status === 503) setTimeout(showModel, 1000);
  }
}

const THEME = "kvasir.theme";
function showTheme() {
  const theme = localStorage.getItem(THEME);
  if (theme) document.documentElement.dataset.theme = theme;
}

const looked = startDashboard(askForKey);
/** Shows the view that the address names. */
function show() {
  const name = location.hash === "#cache" ? "cache" : "chat";
  for (const other of ["chat", "cache"]) {
    $(other).hidden = other !== name;
    if (other === name) $("tab-" + other).setAttribute("aria-current", "page");
    else $("tab-" + other).removeAttribute("aria-current");
  }
  $("menu").hidden = name !== "chat";
  looked();
}

showTheme();
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem(THEME, dark ? "light" : "dark");
  showTheme();
  dispatchEvent(new Event("resize"));
});
addEventListener("hashchange", show);
startChat(askForKey);
show();
showModel();
