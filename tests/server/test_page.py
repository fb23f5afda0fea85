"""The web page in a real browser: the chat and the live view of the cache. With SCREENSHOTS=FOLDER it also makes those
of the docs, best with MODEL=a model that can talk."""
import os
import tempfile
import unittest

import browser
from harness import CHAT, PLAIN, TINY, Server, add_key, chat

MODEL = os.environ.get("MODEL", TINY)
SCREENSHOTS = os.environ.get("SCREENSHOTS")


@unittest.skipUnless(browser.binary() or os.environ.get("KVASIR_REQUIRE_BROWSER"), "no Chromium here")
class Page(unittest.TestCase):
    def setUp(self):
        self.server = Server(model=MODEL)
        self.browser = browser.Browser()
        self.url = f"http://{self.server.host}:{self.server.port}"

    def tearDown(self):
        self.browser.close()
        with self.server:
            pass
        self.assertEqual(self.browser.problems, [])
        elsewhere = [u for u in self.browser.requests if not u.startswith((self.url, "data:", "about:", "blob:"))]
        self.assertEqual(elsewhere, [])

    def shot(self, name):
        if SCREENSHOTS:
            self.browser.screenshot(os.path.join(SCREENSHOTS, name + ".png"))

    def settings(self, **values):
        for name, value in values.items():
            self.browser.eval(f"(() => {{ const i = document.getElementById('set-{name}'); i.value = '{value}';"
                              " i.dispatchEvent(new Event('change')); })()")

    def ask(self, text):
        self.browser.type("#text", text)
        self.browser.press_enter()

    def idle(self):
        self.browser.wait("document.getElementById('stop').hidden")

    def answers(self):
        return self.browser.eval("[...document.querySelectorAll('.message.assistant .body')].map((n) => n.innerText)")

    def test_a_chat_streams_is_stopped_regenerated_edited_and_kept(self):
        b = self.browser
        b.size(1200, 800)
        b.open(self.url)
        self.settings(temperature=0, max_tokens=60)
        self.ask("Why is the sky blue?")
        self.idle()
        first = self.answers()
        self.assertEqual(len(first), 1)
        self.assertIn("tokens/s", b.eval("document.querySelector('.message.assistant .tools').innerText"))
        b.eval("document.querySelectorAll('details.why').forEach((d) => d.open = true)")
        self.assertIn("came from the cache", b.eval("document.querySelector('details.why').innerText"))
        self.shot("chat-light")
        b.dark(True)
        self.shot("chat-dark")
        b.dark(False)
        b.click(".message.assistant .tools button")  # regenerate: greedy, so it is the same
        self.idle()
        self.assertEqual(self.answers(), first)
        self.settings(max_tokens=3000)
        self.ask("And what else is there?")
        b.wait("document.querySelectorAll('.message.assistant').length === 2 && "
               "document.querySelectorAll('.message.assistant .body')[1].innerText.length > 0")
        b.click("#stop")
        self.idle()
        self.server.wait_idle()  # a stop is a cancel
        b.click(".message.user .tools button")
        b.eval("document.querySelector('.message.user textarea').value = 'Another question'")
        self.settings(max_tokens=5)
        b.click(".message.user .tools button")
        self.idle()
        self.assertEqual(len(self.answers()), 1)
        before = b.eval("document.getElementById('messages').innerText")
        b.open(self.url)
        b.wait("document.querySelectorAll('.message').length === 2")
        self.assertEqual(b.eval("document.getElementById('messages').innerText"), before)
        b.click("#new")
        self.ask("A second conversation")
        self.idle()
        self.assertEqual(b.eval("document.querySelectorAll('#list li').length"), 2)
        b.eval("document.querySelectorAll('#list li button')[1].click()")
        self.assertEqual(b.eval("document.querySelectorAll('#list li').length"), 1)
        b.size(360, 740, True)
        b.open(self.url)
        self.assertLessEqual(b.eval("document.documentElement.scrollWidth"), 360)
        self.shot("chat-phone")

    def test_what_a_model_says_never_becomes_markup(self):
        b = self.browser
        b.open(self.url)
        text = "\n".join(["# Head <script>window.hit = 1</script>", "", "<img src=x onerror='window.hit = 1'>", "",
                          "[a](javascript:window.hit=1) [b](https://example.org/x) ![c](https://example.org/c.png)", "",
                          "- one **bold** `a<b`", "  - two", "", "| x | y |", "| - | - |", "| 1 | <b>2</b> |", "", "```html",
                          "<script>window.hit = 1</script>", "```", "", "1. first", "2. second", "", "> said", "", "---"])
        b.eval("window.render = import('/web/markdown.js').then((m) => { const n = document.createElement('div');"
               " n.id = 'rendered'; document.body.append(n); return new m.Markdown(n); })")
        whole = f"(async () => {{ const m = await window.render; m.set({text!r}); return document.getElementById('rendered').outerHTML; }})()"
        at_once = b.eval(whole)
        # Piece by piece it must become the same.
        piecewise = b.eval(f"(async () => {{ const m = await window.render; const t = {text!r}; m.set(''); for (let i = 0; i <= t.length; ++i)"
                           " m.set(t.slice(0, i)); return document.getElementById('rendered').outerHTML; })()")
        self.assertEqual(piecewise, at_once)
        count = lambda what: b.eval(f"document.querySelectorAll('#rendered {what}').length")
        self.assertEqual([count(t) for t in ("script", "img", "a", "table", "li", "pre", "blockquote", "h3", "ol", "hr")],
                         [0, 0, 2, 1, 4, 1, 1, 1, 1, 1], at_once)
        self.assertFalse(b.eval("'hit' in window"))

    def test_the_dashboard_shows_who_is_served_and_every_block(self):
        b = self.browser
        b.size(1200, 900)
        for i in range(6):
            self.server.complete(f"{'a common beginning of some length ' * 8} and {i}", 30)
        streams = [self.server.stream(PLAIN, {"prompt": f"{'a common beginning of some length ' * 8} and {i}",
                                              "max_tokens": 3000, "ignore_eos": True}) for i in range(3)]
        for s in streams:
            next(iter(s))
        b.open(self.url + "/#cache")
        b.wait("document.querySelectorAll('#requests tbody tr').length === 3")
        b.wait("document.getElementById('steps-text').innerText.includes('decode rows')")
        self.assertGreater(b.eval("document.querySelectorAll('#prefixes tbody tr').length"), 1)
        self.assertTrue(b.eval("""(() => { const c = document.getElementById('map'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            const seen = new Set(); for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size > 3; })()"""))
        self.shot("cache-light")
        b.dark(True)
        b.wait("document.getElementById('state').innerText.includes('live')")
        self.shot("cache-dark")
        b.click("#by-tenant")
        for s in streams:
            s.close()
        b.wait("document.getElementById('requests').innerText.includes('nobody')")
        b.size(360, 740, True)
        self.assertLessEqual(b.eval("document.documentElement.scrollWidth"), 360)
        self.shot("cache-phone")

    def test_a_server_with_keys_asks_for_one(self):
        b = self.browser
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "keys.toml")
            add = lambda name, *f: add_key(file, name, *f)
            root, user = add("root", "--role", "operator"), add("user")
            with Server("--keys", file, key=root) as server:
                url = f"http://{server.host}:{server.port}"
                self.browser.requests.clear()
                b.open(url)
                self.settings(max_tokens=5)
                self.ask("hello")
                b.wait("document.getElementById('key').open")
                b.type("#key-text", user)
                b.click("dialog button[value=ok]")
                self.idle()
                self.assertEqual(len(self.answers()), 1)
                b.click("#tab-cache")
                b.wait("document.getElementById('state').innerText.includes('operator')")
                b.click("#tab-chat")
        # A 401 and a 403 are what was tested.
        b.problems = [p for p in b.problems if "401" not in p and "403" not in p]
        self.browser.requests.clear()


if __name__ == "__main__":
    unittest.main()
