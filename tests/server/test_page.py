"""The web page in a real browser: the chat and the live view of the cache. With SCREENSHOTS=FOLDER it also makes those
of the docs, best with MODEL=a model that can talk."""
import json
import os
import re
import tempfile
import unittest

import browser
from harness import CHAT, PLAIN, TINY, Server, add_key, chat

MODEL = os.environ.get("MODEL", TINY)
SCREENSHOTS = os.environ.get("SCREENSHOTS")

# Answers are then those of the test: window.reply, or an error of status window.refuse, or as the test does it with
# say(text), send(chunk), end(reason), or cut() before the end. window.asked has what the page sent, window.streams the
# answers with their `aborted`.
ANSWERS = r"""(() => {
  const real = window.fetch, encode = new TextEncoder();
  window.asked = [];
  window.streams = [];
  window.fetch = async (url, options = {}) => {
    if (url !== '/v1/chat/completions') return real(url, options);
    let control;
    const stream = new ReadableStream({start: (c) => { control = c; }}), mine = {aborted: false};
    const data = (text) => control.enqueue(encode.encode(`data: ${text}\n\n`));
    mine.send = (chunk) => data(JSON.stringify({choices: [{delta: {}}], ...chunk}));
    mine.say = (content) => mine.send({choices: [{delta: {content}}]});
    mine.cut = () => control.close();
    mine.end = (finish_reason = 'stop') => {
      mine.send({choices: [{delta: {}, finish_reason}]});
      data('[DONE]');
      control.close();
    };
    Object.assign(window, mine);
    window.streams.push(mine);
    window.asked.push(JSON.parse(options.body).messages);
    if (window.refuse) return new Response(JSON.stringify({error: {message: 'no place is free'}}), {status: window.refuse});
    options.signal.addEventListener('abort', () => {
      mine.aborted = true;
      control.error(new DOMException('stopped', 'AbortError'));
    });
    if (window.reply != null) {
      mine.say(window.reply);
      mine.end();
    }
    return new Response(stream);
  };
})()"""
# window.md(text): a Markdown that shows it. window.html(text): what that makes.
MARKDOWN = """import('/web/markdown.js').then(({Markdown}) => {
  window.md = (text) => { const m = new Markdown(document.createElement('div')); m.set(text); return m; };
  window.html = (text) => md(text).node.innerHTML;
})"""


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

    def open(self):
        """The page, with answers of the test's own."""
        self.browser.open(self.url)
        self.browser.eval(ANSWERS)

    def open_markdown(self):
        self.browser.open(self.url)
        self.browser.eval(MARKDOWN)

    def settings(self, **values):
        for name, value in values.items():
            self.browser.eval(f"(() => {{ const i = document.getElementById('set-{name}'); i.value = '{value}';"
                              " i.dispatchEvent(new Event('change')); })()")

    def ask(self, text):
        self.browser.type("#text", text)
        self.browser.press("Enter")

    def idle(self):
        self.browser.wait("document.getElementById('stop').hidden")

    def answers(self):
        return self.browser.eval("[...document.querySelectorAll('.message.assistant .body:not(.thoughts)')].map((n) => n.innerText)")

    def messages(self):
        return self.browser.eval("[...document.querySelectorAll('.message .body:not(.thoughts)')].map((n) => n.innerText)")

    def talk(self, *texts):
        """Questions and answers by turns."""
        for question, answer in zip(texts[::2], texts[1::2]):
            self.browser.eval(f"window.reply = {json.dumps(answer)}")
            self.ask(question)
            self.browser.wait(f"document.getElementById('messages').innerText.includes({json.dumps(answer)})")
            self.idle()
        self.browser.eval("window.reply = null")

    def press(self, i, name):
        """A button of a message; -1 is the last message."""
        self.browser.eval(f"[...[...document.querySelectorAll('.message')].at({i}).querySelectorAll('.tools button')]"
                          f".find((n) => n.textContent === '{name}').click()")

    def sure(self, yes=True):
        self.browser.wait("document.getElementById('sure').open")
        self.browser.click("#sure-ok" if yes else "#sure button[value=cancel]")

    def failed(self):
        return self.browser.eval("document.getElementById('failed').innerText")

    def kept(self):
        """The texts of all conversations as this browser keeps them."""
        return self.browser.eval("Object.entries({...localStorage}).filter(([name]) => name.startsWith('kvasir.chat.'))"
                                 ".map(([, text]) => JSON.parse(text).messages.map((m) => m.content).join())")

    def focus(self):
        return self.browser.eval("document.activeElement.id")

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
        self.sure()
        b.wait("document.querySelector('.message').innerText.includes('Another')")
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
        b.click("#list [aria-label^=Delete]")
        self.sure()
        b.wait("document.querySelectorAll('#list li').length === 1")
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

    def test_no_answer_kills_the_page_not_even_after_a_reload(self):
        b = self.browser
        self.open()
        texts = ["# a\rb", "# a\u2028b", "- a\u2029b", "1. " * 4000, ">" * 3000, "> - " * 2000, "`" * 2000, "[" * 20000]
        for text in texts:
            b.eval(f"window.reply = {json.dumps(text)}")
            self.ask("Say it")
            b.wait("asked.length > 0 && document.getElementById('stop').hidden")
            b.eval("asked.length = 0")
        self.assertEqual(len(self.answers()), len(texts))
        self.open()
        self.assertEqual(len(self.answers()), len(texts))
        b.eval("window.reply = 'alive'")
        self.ask("And now?")
        b.wait("document.getElementById('messages').innerText.includes('alive')")

    def test_what_cannot_be_read_as_markdown_is_shown_as_it_is(self):
        b = self.browser
        self.open_markdown()
        shown = b.eval("""(() => { const m = md('# before'), split = String.prototype.split;
            String.prototype.split = () => { throw new Error('cannot split'); };
            m.set('# before\\n\\n*after*');
            String.prototype.split = split;
            const failed = m.node.innerHTML;
            m.set('# before\\n\\n*after* that');
            return [failed, m.node.innerHTML]; })()""")
        self.assertEqual(shown, ["# before\n\n*after*", "<h3>before</h3><p><em>after</em> that</p>"])
        self.assertEqual(len(b.problems), 1)  # it is told in the console
        self.assertIn("cannot split", b.problems.pop())

    def test_markdown_is_read_in_linear_time_whatever_it_is(self):
        b = self.browser
        self.open_markdown()
        # With anything quadratic these take from minutes to days.
        for text in ["'['.repeat(1e6)", "'[a]('.repeat(3e5)", "'[a](' + ' '.repeat(1e6)", "'[a](x\"'.repeat(2e5)", "'[a](x()'.repeat(2e5)",
                     "'x' + '`'.repeat(1e6)", "Array.from({length: 2000}, (_, i) => '`'.repeat(i)).join(' ')", "'**a'.repeat(1e5)",
                     "'_a'.repeat(3e5)", "'http://'.repeat(2e5)", "'# a' + ' '.repeat(1e6) + 'b'", "'# ' + '#'.repeat(1e6) + 'b'",
                     "'|\\n' + ' '.repeat(1e6) + '|x'", "'```' + ' '.repeat(1e6) + '`'", "'---' + ' '.repeat(1e6) + 'x'",
                     "'1. '.repeat(1e5)", "'> '.repeat(1e5)", "'1. > '.repeat(1e5)", "'*a '.repeat(3e5) + 'b* '.repeat(3e5)", "'*'.repeat(1e6) + 'a'",
                     "'_a **b '.repeat(1e5) + 'c~~ '.repeat(1e5)", "'*a **b ***c '.repeat(5e4) + 'd***'.repeat(5e4)", r"'\\\\*'.repeat(3e5)",
                     "('http://' + '_'.repeat(1000)).repeat(1000)", "'[a **b](https://x.y) '.repeat(5e4)"]:
            self.assertEqual(b.eval(f"md({text}).node.childNodes.length"), 1, text)

    def test_quotes_and_lists_are_nested_only_so_deep(self):
        self.open_markdown()
        depth = lambda tag, text: self.browser.eval(f"md({text}).node.querySelectorAll('{tag}').length")
        self.assertEqual(depth("blockquote", "'>'.repeat(20) + 'a'"), 20)
        self.assertEqual(depth("ol", "'1. '.repeat(20) + 'a'"), 20)
        self.assertEqual(depth("blockquote", "'>'.repeat(50) + 'a'"), 21)
        self.assertEqual(depth("ol", "'1. '.repeat(50) + 'a'"), 21)
        self.assertTrue(self.browser.eval("md('>'.repeat(50) + 'a').node.textContent.endsWith('>a')"))

    def test_markdown_becomes_the_nodes_that_it_means(self):
        self.open_markdown()
        item = lambda *inside: "<li>" + "".join(inside) + "</li>"
        code = lambda text, more="": f'<div class="code"{more}><pre><code>{text}</code></pre><button type="button">Copy</button></div>'
        js = ' data-language="js"'
        table = "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
        for text, expected in [
                # A block of code in an item, with an empty line and with what looks like an item.
                ("1. x\n   ```js\n   a\n\n     b\n   ```\n2. y", f"<ol>{item('<p>x</p>', code(f'a{chr(10)}{chr(10)}  b', js))}{item('<p>y</p>')}</ol>"),
                ("- ```\n  a\n\n- b\n  ```\n\nz", f"<ul>{item(code(f'a{chr(10)}{chr(10)}- b'))}</ul><p>z</p>"),
                ("- x\n\n  y\n\n- z", f"<ul>{item('<p>x</p>', '<p>y</p>')}{item('<p>z</p>')}</ul>"),
                ("- x\n\n3. y\n\nz", f"<ul>{item('<p>x</p>')}</ul><ol start=\"3\">{item('<p>y</p>')}</ol><p>z</p>"),
                ("- x\n- - -\ny", f"<ul>{item('<p>x</p>')}</ul><hr><p>y</p>"),
                ("1. x\n```js\na\n```\n2. y", f"<ol>{item('<p>x</p>')}</ol>{code('a', js)}<ol start=\"2\">{item('<p>y</p>')}</ol>"),
                # A fence is not closed in its line, and not by one that names a language.
                ("```ls```\nx", "<p><code>ls</code>\nx</p>"),
                ("x\n```js\na\n```py\n```\ny", f"<p>x</p>{code(f'a{chr(10)}```py', js)}<p>y</p>"),
                ("````\n```\na\n````", code("```\na")),
                # A table after text.
                ("x:\n| a | b |\n|---|:-:|\n| 1 | 2 |\ny", f"<p>x:</p>{table}<p>y</p>"),
                ("x | y\nz", "<p>x | y\nz</p>"),
                # Lines end with \r\n or \r too, and nowhere else.
                ("x\r\ry\r\n# z", "<p>x</p><p>y</p><h3>z</h3>"),
                ("# x\u2028y", "<h3>x\u2028y</h3>"),
                ("# C#\n## x ##", "<h3>C#</h3><h4>x</h4>"),
                ("`` a`b `` `` c", "<p><code>a`b</code> `` c</p>"),
                ("**a *b* `c`** _d_ ~~e~~", "<p><strong>a <em>b</em> <code>c</code></strong> <em>d</em> <del>e</del></p>"),
                # Emphasis within emphasis, over lines, and what only looks like it.
                ("***a***, ***b** c*", "<p><em><strong>a</strong></em>, <em><strong>b</strong> c</em></p>"),
                ("**a *b***, *c **d***", "<p><strong>a <em>b</em></strong>, <em>c <strong>d</strong></em></p>"),
                ("**a\nb** c\n*d", "<p><strong>a\nb</strong> c\n*d</p>"),
                ("**a*b*c** **“d”**e", "<p><strong>a<em>b</em>c</strong> <strong>“d”</strong>e</p>"),
                ("2 * 3 * 4, a*, snake_case_name, x_ y_, ****z****", "<p>2 * 3 * 4, a*, snake_case_name, x_ y_, ****z****</p>"),
                ("**a* ~b~ *", "<p>**a* ~b~ *</p>"),
                (r"\*a\* \`b\` \[c](https://x.y) \d `\*`", r"<p>*a* `b` [c](<a>https://x.y</a>) \d <code>\*</code></p>"),
                ("[**a** `b` https://x.y](https://x.y) **https://x.y/z**",
                 "<p><a><strong>a</strong> <code>b</code> https://x.y</a> <strong><a>https://x.y/z</a></strong></p>"),
                ("| a | b |\n|---|---|\n| 1<br>2 | 3 |", "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1<br>2</td><td>3</td></tr></tbody></table>"),
                ("a  \nb<br/>c", "<p>a<br>b<br>c</p>")]:
            made = self.browser.eval(f"html({json.dumps(text)})")
            self.assertEqual(re.sub("<a [^>]*>", "<a>", made), expected, text)

    def test_markdown_piece_by_piece_becomes_the_same_as_at_once(self):
        self.open_markdown()
        wrong = self.browser.eval(r"""(() => {
          const pieces = ['# h', 'text', '- a', '  - b', '1. c', '   d', '> q', '```', '   ```js', '| a | b |', '|---|---|', '---', '**s** *e*',
                          '`c` ``d', '[l](https://a.b/c_(d))', '***x** y*', '**z', 'z** *', '\\*', '[**m**](https://a.b)', '~~k', 'k~~', '~~~', '', '', '\t', '# x\u2028y', '````', '```ls```', '- - -', '  * z  '];
          const ends = ['\n', '\n', '\n\n', '\r\n', '\r', ' '];
          let seed = 1;
          const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
          for (let round = 0; round < 400; ++round) {
            let text = '';
            for (let i = random(14); i >= 0; --i) text += pieces[random(pieces.length)] + ends[random(ends.length)];
            const grown = md('');
            for (let at = 0; at < text.length; at += 1 + random(4)) grown.set(text.slice(0, at));
            grown.set(text);
            if (grown.node.innerHTML !== html(text)) return [text, grown.node.innerHTML, html(text)];
          }
          return null; })()""")
        self.assertIsNone(wrong)

    def test_of_a_long_answer_only_what_is_new_is_made(self):
        self.open_markdown()
        made, same = self.browser.eval(r"""(() => {
          let made = 0;
          for (const name of ['createElement', 'createTextNode']) {
            const real = document[name];
            document[name] = function (what) { ++made; return real.call(document, what); };
          }
          const m = md(''), find = (what) => m.node.querySelector(what);
          let text = '';
          const add = (more) => m.set(text += more);
          /** Adds many pieces bit by bit: is the first still the same node in the end? */
          const grows = (piece, first) => {
            for (const part of piece(0).match(/[^]{1,4}/g)) add(part);
            const was = first();
            for (let i = 1; i < 200; ++i) for (const part of piece(i).match(/[^]{1,4}/g)) add(part);
            return !!was && first() === was;
          };
          const same = [];
          same.push(grows((i) => `${i + 3}. item **${i}**\n`, () => find('ol > li')));
          same.push(grows((i) => `     - inside ${i}\n`, () => find('ul > li')));
          same.push(find('ol').start === 3 && find('ol').children.length === 200 && find('ul').children.length === 200);
          add('\nend\n\n```\n');
          same.push(grows((i) => `x = ${i}\n\n`, () => find('pre code').firstChild));
          add('```\n\n| a | b |\n|---|---|\n');
          same.push(grows((i) => `| ${i} | c |\n`, () => find('tbody tr')));
          return [made, same]; })()""")
        self.assertEqual(same, [True] * 5)
        self.assertLess(made, 200 * 60)  # all of it at each step would be hundreds of thousands

    def test_while_an_answer_streams_no_conversation_is_cut_short(self):
        b = self.browser
        self.open()
        messages = self.messages
        press = lambda i, name: b.eval(f"[...document.querySelectorAll('.message')[{i}].querySelectorAll('.tools button')]"
                                       f".find((n) => n.textContent === '{name}')?.click()")
        b.eval("window.reply = 'one'")
        self.ask("first")
        b.wait("asked.length === 1 && document.getElementById('stop').hidden")
        b.eval("window.reply = null")
        self.ask("second")
        b.wait("asked.length === 2")
        self.assertFalse(b.eval("[...document.querySelectorAll('.message .tools button')].some((n) => n.checkVisibility())"))
        for i, name in [(0, "Edit"), (0, "Send again"), (1, "Regenerate"), (2, "Edit"), (2, "Cancel")]:
            press(i, name)
        b.eval("(say('two'), end())")
        self.idle()
        self.assertEqual(messages(), ["first", "one", "second", "two"])
        # Nothing is not sent, and who thinks better of it sees what was.
        b.eval("window.views = [...document.querySelectorAll('.message')]")
        press(0, "Edit")
        b.eval("document.querySelector('.message textarea').value = '  '")
        press(0, "Send again")
        press(0, "Cancel")
        self.assertEqual(messages(), ["first", "one", "second", "two"])
        self.assertTrue(b.eval("[...document.querySelectorAll('.message')].every((n, i) => n === views[i])"))
        self.open()
        self.assertEqual(messages(), ["first", "one", "second", "two"])
        self.assertTrue(b.eval("document.querySelector('.message .tools button').checkVisibility()"))

    def test_what_was_not_answered_is_left_out_of_what_follows_and_can_be_asked_again(self):
        b = self.browser
        self.open()
        press = lambda name: b.eval(f"[...document.querySelectorAll('.tools button')].filter((n) => n.textContent === '{name}').at(-1).click()")
        sent = lambda n: b.wait(f"asked.length === {n} && asked.at(-1).map((m) => m.content).join(' ')")
        roles = lambda: b.eval("asked.at(-1).map((m) => m.role[0]).join('')")
        b.eval("window.refuse = 503")
        self.ask("q1")
        sent(1)
        self.idle()
        self.assertEqual((self.messages(), self.failed()), (["q1"], "no place is free"))
        b.eval("(window.refuse = 0, window.reply = 'a2')")
        self.ask("q2")
        self.assertEqual(sent(2), "q2")
        self.idle()
        b.eval("window.reply = null")
        self.ask("q3")  # and is stopped before it begins
        self.assertEqual((sent(3), roles()), ("q2 a2 q3", "uau"))
        b.click("#stop")
        self.idle()
        self.assertEqual(self.messages(), ["q1", "q2", "a2", "q3"])
        press("Ask again")
        self.assertEqual((sent(4), roles()), ("q2 a2 q3", "uau"))
        b.click("#stop")
        self.idle()
        b.eval("window.reply = 'a4'")
        self.ask("q4")
        self.assertEqual((sent(5), roles()), ("q2 a2 q4", "uau"))
        self.idle()
        b.eval("window.reply = null")
        self.ask("q5")
        sent(6)
        self.open()  # the page is closed before the answer
        press("Ask again")
        self.assertEqual((sent(1), roles()), ("q2 a2 q4 a4 q5", "uauau"))
        b.eval("(say('a5'), end())")
        self.idle()
        self.assertEqual(self.answers(), ["a2", "a4", "a5"])
        b.eval("window.reply = 'a1'")
        b.eval("[...document.querySelectorAll('.tools .again')].filter((n) => n.checkVisibility())[0].click()")  # of the first, that failed
        self.sure()
        self.assertEqual(sent(2), "q1")
        self.idle()
        self.assertEqual(self.answers(), ["a1"])
        b.eval("(window.refuse = 429, document.querySelector('.message.assistant .tools button').click())")
        sent(3)
        self.idle()
        self.assertEqual((self.answers(), self.failed()), (["a1"], "no place is free"))
        b.eval("window.refuse = 0")
        press("Edit")
        press("Send again")
        self.assertEqual(sent(4), "q1")
        self.idle()
        self.assertEqual(self.answers(), ["a1"])
        b.problems = [p for p in b.problems if "503" not in p and "429" not in p]

    def test_a_request_that_fails_before_its_answer_loses_nothing(self):
        b = self.browser
        self.open()
        self.talk("q1", "a1", "q2", "a2")
        before = self.kept()
        b.eval("window.refuse = 503")
        self.press(-1, "Regenerate")
        b.wait("document.getElementById('failed').innerText !== ''")
        self.assertEqual((self.messages(), self.failed(), self.kept()), (["q1", "a1", "q2", "a2"], "no place is free", before))
        # What was changed is there to be sent again.
        self.press(0, "Edit")
        b.eval("document.querySelector('.message textarea').value = 'q3'")
        self.press(0, "Send again")
        self.sure()
        b.wait("asked.length === 4")
        self.idle()
        self.assertEqual((self.messages()[1:], self.kept()), (["a1", "q2", "a2"], before))
        self.assertEqual(b.eval("document.querySelector('.message textarea').value"), "q3")
        b.click("#new")
        b.eval("document.querySelector('#list li button').click()")
        self.assertEqual(b.eval("document.querySelector('.message textarea').value"), "q3")
        self.press(0, "Cancel")
        self.assertEqual((self.messages(), self.failed()), (["q1", "a1", "q2", "a2"], ""))
        # Nor does one that is stopped.
        b.eval("window.refuse = 0")
        self.press(1, "Regenerate")
        self.sure()
        b.wait("asked.length === 5")
        self.assertEqual(self.messages(), ["q1", ""])
        b.eval("send({prompt_progress: {processed: 1, total: 2}})")
        b.wait("!!document.querySelector('progress')")
        b.click("#stop")
        self.idle()
        self.assertEqual((self.messages(), self.kept()), (["q1", "a1", "q2", "a2"], before))
        # With the first text it is another conversation.
        self.press(1, "Regenerate")
        self.sure()
        b.wait("asked.length === 6")
        b.eval("(say('a3'), end())")
        self.idle()
        self.assertEqual((self.messages(), self.kept()), (["q1", "a3"], ["q1,a3"]))
        b.problems = [p for p in b.problems if "503" not in p]

    def test_what_cannot_be_brought_back_is_deleted_only_after_a_question(self):
        b = self.browser
        self.open()
        self.talk("q1", "a1", "q2", "a2")
        all_there = (["q1", "a1", "q2", "a2"], ["q1,a1,q2,a2"])
        self.press(1, "Regenerate")
        self.sure(False)
        self.press(0, "Edit")
        self.press(0, "Send again")
        b.wait("document.getElementById('sure').open")
        b.press("Escape")
        b.wait("!document.getElementById('sure').open")
        self.press(0, "Cancel")
        b.click("#list [aria-label^=Delete]")
        self.sure(False)
        self.assertEqual((self.messages(), self.kept(), b.eval("asked.length")), (*all_there, 2))
        self.press(-1, "Regenerate")  # the last answer alone needs no question
        b.wait("asked.length === 3")
        b.eval("(say('a3'), end())")
        self.idle()
        b.click("#list [aria-label^=Delete]")
        self.sure()
        b.wait("document.querySelectorAll('#list li').length === 0")
        self.assertEqual((self.messages(), self.kept(), self.focus()), ([], [], "text"))
        self.talk("q4", "a4")
        b.click("#list [aria-label^=Delete]")
        b.wait("document.getElementById('sure').open")
        b.press("Escape")  # is not the answer before
        b.wait("!document.getElementById('sure').open")
        b.eval("new Promise((done) => setTimeout(done, 100))")
        self.assertEqual(self.kept(), ["q4,a4"])

    def test_an_answer_that_is_not_whole_says_so(self):
        b = self.browser
        self.open()
        notes = lambda: b.eval("[...document.querySelectorAll('.message.assistant')].map((n) => n.querySelector('.note, .error:not([hidden])')?.innerText ?? '')")
        for i, how in enumerate(["end()", "(send({usage: {completion_tokens: 7, prompt_tokens: 1, prompt_tokens_details: {cached_tokens: 0}},"
                                 " timings: {ttft_ms: 1, predicted_per_second: 1}}), end('length'))",
                                 "document.getElementById('stop').click()", "cut()", "(send({error: {message: 'out of memory'}}), cut())"]):
            self.ask(f"q{i}")
            b.wait(f"asked.length === {i + 1}")
            b.eval("say('half')")
            b.wait("[...document.querySelectorAll('.message.assistant')].at(-1).innerText.includes('half')")
            b.eval(how)
            self.idle()
        expected = ["", "cut at 7 tokens", "stopped", "the connection ended early", "out of memory"]
        self.assertEqual((self.answers(), notes()), (["half"] * 5, expected))
        # The error alone looks and is spoken like one.
        color = lambda what: b.eval(f"getComputedStyle([...document.querySelectorAll('.message.assistant')].at(-1).querySelector('{what}')).color")
        self.assertEqual(color(".body:not(.thoughts)"), b.eval("getComputedStyle(document.body).color"))
        self.assertNotEqual(color("[role=alert]"), color(".body:not(.thoughts)"))
        self.open()
        self.assertEqual((self.answers(), notes()), (["half"] * 5, expected))

    def test_a_page_that_is_left_stops_its_answer_and_keeps_what_came(self):
        b = self.browser
        b.open(self.url)
        b.eval("(() => { const real = fetch; window.fetch = (url, o) => real(url, o?.body ? {...o, body: o.body.replace('{', '{\"ignore_eos\":true,')} : o); })()")
        self.settings(max_tokens=3900)
        self.ask("Why is the sky blue?")
        b.wait("document.querySelector('.message.assistant .body:not(.thoughts)')?.innerText.length > 5")
        # As when it stays in the memory of the browser, to come back. Otherwise nothing runs after that.
        kept = b.eval("(window.dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true})), JSON.stringify({...localStorage}))")
        self.assertIn("assistant", kept)
        self.idle()
        self.server.wait_idle()
        self.assertEqual(b.eval("document.querySelector('.message.assistant .note').innerText"), "stopped")

    def test_an_answer_is_kept_while_it_streams(self):
        b = self.browser
        self.open()
        self.ask("q")
        b.wait("asked.length === 1")
        b.eval("window.timer = setInterval(() => say('x'), 100)")
        b.wait("Object.values({...localStorage}).some((text) => text.includes('xxxxx'))")
        b.eval("clearInterval(timer)")
        b.eval("say('y')")
        self.open()
        self.assertIn("xxxxx", self.answers()[0])

    def test_an_answer_streams_on_while_another_conversation_is_shown(self):
        b = self.browser
        self.open()
        row = lambda i: b.eval(f"document.querySelectorAll('#list li button:first-child')[{i}].click()")
        streaming = lambda: b.eval("[...document.querySelectorAll('#list .live')].map((n) => n.checkVisibility())")
        busy = lambda: b.eval("document.getElementById('stop').checkVisibility()")
        self.talk("old", "a0")
        b.click("#new")
        self.ask("first")
        b.wait("asked.length === 2")
        b.eval("say('one')")
        row(0)  # the one that is shown
        self.assertEqual((busy(), streaming()), (True, [True, False]))
        b.click("#new")
        self.assertFalse(busy())
        self.ask("second")
        b.wait("asked.length === 3")
        self.assertEqual(streaming(), [True, True, False])
        b.eval("(streams[1].say(' two'), streams[2].say('three'))")
        row(1)
        b.wait("document.getElementById('messages').innerText.includes('one two')")
        self.assertTrue(busy())
        b.eval("(streams[1].say(' four'), streams[2].end())")
        b.wait("document.getElementById('messages').innerText.includes('one two four')")
        b.wait("document.querySelectorAll('#list .live:not([hidden])').length === 1")
        self.assertTrue(busy())
        row(2)
        b.eval("streams[1].end()")
        b.wait("document.querySelectorAll('#list .live:not([hidden])').length === 0")
        self.assertEqual(self.messages(), ["old", "a0"])
        self.assertEqual(b.eval("streams.map((s) => s.aborted)"), [False] * 3)
        self.open()
        self.assertEqual(sorted(self.kept()), ["first,one two four", "old,a0", "second,three"])

    def test_the_end_of_an_answer_stays_in_sight_until_the_reader_scrolls_up(self):
        b = self.browser
        b.size(900, 600)
        self.open()
        left = "(() => { const n = document.getElementById('messages'); return n.scrollHeight - n.clientHeight - n.scrollTop; })()"
        frames = lambda: b.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))")
        say = lambda: (b.eval("say('a line\\n\\n'.repeat(30))"), frames())
        self.ask("q")
        b.wait("asked.length === 1")
        for _ in range(2):
            say()
            b.wait(f"{left} < 2")
        b.click("#tab-cache")
        b.wait("!document.getElementById('cache').hidden")
        say()
        b.click("#tab-chat")
        b.wait(f"{left} < 2 && document.getElementById('messages').clientHeight > 0")
        say()
        b.wait(f"{left} < 2")
        b.mouse("mouseWheel", 500, 300, deltaX=0, deltaY=-30)  # a little is enough
        b.wait(f"{left} > 20")
        frames()
        at = b.wait("document.getElementById('messages').scrollTop")
        say()
        self.assertEqual(b.eval("document.getElementById('messages').scrollTop"), at)
        b.click("#tab-cache")
        b.wait("!document.getElementById('cache').hidden")
        b.click("#tab-chat")
        b.wait(f"document.getElementById('messages').scrollTop === {at}")
        b.eval("document.getElementById('messages').scrollTop = 1e9")
        frames()
        say()
        b.wait(f"{left} < 2")
        b.eval("end()")
        self.idle()

    def test_the_keyboard_is_never_lost(self):
        b = self.browser
        self.open()
        self.ask("q1")
        b.wait("asked.length === 1")
        self.assertEqual(self.focus(), "text")
        b.eval("document.getElementById('stop').focus()")
        b.click("#stop")
        self.idle()
        self.assertEqual(self.focus(), "text")
        self.talk("q2", "a2")
        b.eval("(window.reply = 'a3', document.querySelector('.message.assistant button').focus())")
        self.press(-1, "Regenerate")
        b.wait("asked.length === 3")
        self.idle()
        self.assertEqual(self.focus(), "text")
        self.press(-2, "Edit")
        self.assertEqual(b.eval("document.activeElement.tagName + document.activeElement.id"), "TEXTAREA")
        b.press("Escape")
        self.assertEqual((self.messages()[-2:], self.focus()), (["q2", "a3"], "text"))
        self.press(-2, "Edit")
        self.press(-2, "Send again")
        b.wait("asked.length === 4")
        self.idle()
        self.assertEqual(self.focus(), "text")

    def test_an_answer_is_added_to_the_conversation_that_is_shown(self):
        b = self.browser
        self.open()
        self.talk("q1", "a1")
        b.eval("window.views = [...document.querySelectorAll('.message')]")
        self.ask("q2")
        b.wait("asked.length === 2")
        self.assertEqual(b.eval("document.getElementById('messages').getAttribute('aria-busy')"), "true")
        b.eval("(say('a2'), end())")
        self.idle()
        self.assertEqual(b.eval("document.getElementById('messages').getAttribute('aria-busy')"), "false")
        self.assertEqual(b.eval("[...document.querySelectorAll('.message')].map((n, i) => n === views[i])"), [True, True, False, False])

    def test_what_is_waited_for_is_shown_where_it_comes(self):
        b = self.browser
        self.open()
        bar = lambda: b.eval("!!document.querySelector('progress')")
        cursor = "document.querySelector('.cursor')"
        self.ask("q")
        b.wait("asked.length === 1")
        b.eval("send({prompt_progress: {processed: 1, total: 2}})")
        b.wait("!!document.querySelector('progress')")
        b.eval("send({choices: [{delta: {reasoning_content: 'hm'}}]})")
        b.wait("document.querySelector('.message.assistant summary').innerText.includes('Thinking')")
        b.eval("send({prompt_progress: {processed: 2, total: 2}})")
        b.wait(f"{cursor}.closest('.thoughts') && {cursor}.textContent === 'hm'")
        self.assertFalse(bar())
        b.eval("say('text\\n\\n- one\\n- two')")
        b.wait(f"{cursor}?.innerText === 'two'")
        b.eval("say('\\n\\n```\\ncode')")
        b.wait(f"{cursor}?.tagName === 'CODE'")
        b.eval("end()")
        self.idle()
        self.assertEqual((bar(), b.eval(cursor), b.eval("document.querySelector('.message.assistant summary').innerText")), (False, None, "Thoughts"))

    def test_long_code_scrolls_by_itself_and_is_copied(self):
        b = self.browser
        b.size(900, 700)
        self.open()
        self.ask("q")
        b.wait("asked.length === 1")
        code = "'```py\\n' + 'x = 1; '.repeat(100) + '\\n```\\n| a | b |\\n|---|---|\\n| 1,000,000.00 | ' + 'x'.repeat(500) + '|'"
        b.eval(f"(send({{choices: [{{delta: {{reasoning_content: {code}}}}}]}}), say({code}), end())")
        self.idle()
        b.eval("document.querySelector('.message.assistant details').open = true")
        for place in (".thoughts", ".message.assistant > .body"):
            self.assertTrue(b.eval(f"(() => {{ const n = document.querySelector('{place} pre'); return n.scrollWidth > n.clientWidth; }})()"))
            self.assertTrue(b.eval(f"""(() => {{ const pre = document.querySelector('{place} pre'), button = document.querySelector('{place} .code button');
                return !pre.contains(button) && button.getBoundingClientRect().bottom <= pre.getBoundingClientRect().top + 1; }})()"""))
            self.assertEqual(b.eval(f"getComputedStyle(document.querySelector('{place} td')).overflowWrap"), "normal")
        self.assertTrue(b.eval("(() => { const n = document.getElementById('messages'); return n.scrollWidth <= n.clientWidth; })()"))
        # Without a clipboard, as on a page over plain http.
        b.eval("""Object.defineProperty(navigator, 'clipboard', {value: undefined});
                  document.execCommand = (what) => { window.copied = [what, String(document.activeElement.value)]; return true; }""")
        b.click(".message.assistant > .body .code button")
        b.wait("document.querySelector('.message.assistant > .body .code button').innerText === 'Copied'")
        self.assertEqual(b.eval("copied"), ["copy", "x = 1; " * 100])
        b.wait("document.querySelector('.message.assistant > .body .code button').innerText === 'Copy'")

    def test_views_and_drawer_go_where_people_go(self):
        b = self.browser
        b.size(360, 740, True)
        self.open()
        shown = lambda: b.eval("[...document.querySelectorAll('main')].filter((n) => !n.hidden).map((n) => n.id).join()")
        drawer = lambda: (b.eval("document.getElementById('conversations').checkVisibility()"), b.eval("document.getElementById('menu').ariaExpanded"))
        b.click("#tab-cache")
        b.wait("!document.getElementById('cache').hidden")
        self.assertFalse(b.eval("document.getElementById('menu').checkVisibility()"))
        b.eval("history.back()")
        b.wait("!document.getElementById('chat').hidden")
        b.eval("location.hash = 'cache'")
        b.wait("document.getElementById('chat').hidden")
        self.assertEqual(shown(), "cache")
        b.eval("location.hash = ''")
        b.wait("!document.getElementById('chat').hidden")
        self.assertTrue(b.eval("[...document.querySelectorAll('header button, header a, form#ask button')].filter((n) => n.checkVisibility())"
                               ".every((n) => n.offsetHeight >= 44 && n.offsetWidth >= 44)"))
        self.talk("q", "a")
        for leave in [lambda: b.press("Escape"), lambda: b.mouse("mousePressed", 340, 300, button="left", clickCount=1),
                      lambda: b.click("#list li button:first-child"), lambda: b.click("#new")]:
            b.click("#menu")
            self.assertEqual(drawer(), (True, "true"))
            leave()
            self.assertEqual(drawer(), (False, "false"))

    def test_a_conversation_is_renamed(self):
        b = self.browser
        self.open()
        self.talk("q", "a")
        title = lambda: (b.eval("document.querySelector('#list li button').textContent"), b.eval("document.querySelector('#list li button').title"))
        for key, name, expected in [("Enter", "Sky & sea", "Sky & sea"), ("Escape", "other", "Sky & sea"), ("Enter", "  ", "Sky & sea")]:
            b.click("#list [aria-label^=Rename]")
            b.eval("document.querySelector('#list input').value = ''")
            b.type("#list input", name)
            b.press(key)
            self.assertEqual((title(), self.focus()), ((expected, expected), "text"))
        self.assertIn("Sky & sea", b.eval("document.title"))
        self.open()
        self.assertEqual(title()[0], "Sky & sea")

    def test_two_tabs_keep_each_others_conversations(self):
        b = self.browser
        titles = "[...document.querySelectorAll('#list li button:first-child')].map((n) => n.textContent).join()"
        say = lambda question, answer: (b.eval(f"window.reply = '{answer}'"), self.ask(question), b.wait(
            f"document.getElementById('messages').innerText.includes('{answer}') && document.getElementById('stop').hidden"))
        self.open()
        one = b.new_tab()
        self.open()
        two = b.session
        b.session = one
        say("first", "one")
        b.session = two
        b.wait(f"{titles} === 'first'")
        say("second", "two")
        b.session = one
        b.wait(f"{titles} === 'second,first'")
        say("more", "three")
        self.open()
        self.assertEqual(b.eval(titles), "second,first")
        b.eval("document.querySelectorAll('#list li button:first-child')[1].click()")  # the one called first
        b.wait("document.getElementById('messages').innerText.includes('three')")
        # Both ask in the same conversation at the same time: no answer is lost.
        b.eval("window.reply = null")
        self.ask("slowly")
        b.wait("asked.length === 1")
        b.session = two
        b.eval("document.querySelectorAll('#list li button:first-child')[1].click()")
        b.wait("document.getElementById('messages').innerText.includes('slowly')")
        say("quickly", "four")
        b.session = one
        b.wait(f"{titles} === 'second,first,first'")
        b.eval("(say('five'), end())")
        self.idle()
        self.open()
        kept = "Object.entries({...localStorage}).filter(([name]) => name.startsWith('kvasir.chat.')).map(([, text]) => text).join()"
        for answer in ("two", "three", "four", "five"):
            b.wait(f"""{kept}.includes('"{answer}"')""")
        # What is deleted in one goes in the other, and only that.
        b.click("#list [aria-label^=Delete]")
        self.sure()
        b.wait(f"{titles} === 'first,first'")
        b.session = two
        b.wait(f"{titles} === 'first,first'")
        self.open()
        self.assertEqual(b.eval(titles), "first,first")

    def test_two_tabs_keep_each_others_settings(self):
        b = self.browser
        self.open()
        one = b.new_tab()
        self.open()
        two, b.session = b.session, one
        # What one tab writes comes to the other a moment later.
        has = "localStorage.getItem('kvasir.settings')?.includes('{}')"
        self.settings(top_k=5)
        b.session = two
        b.wait(has.format("top_k"))
        self.settings(max_tokens=7)
        b.session = one
        b.wait(has.format("max_tokens"))
        self.settings(top_p="")
        kept = json.loads(b.eval("localStorage.getItem('kvasir.settings')"))
        self.assertEqual((kept["top_k"], kept["max_tokens"], kept["temperature"]), (5, 7, 0.7))

    def test_conversations_of_an_older_page_are_taken_over(self):
        b = self.browser
        b.open(self.url)
        b.eval("""localStorage.setItem('kvasir.chats', JSON.stringify(['new', 'middle', 'old'].map((title) => ({id: title, title, messages: [
            {role: 'user', content: `about ${title}`}, {role: 'assistant', content: 'yes'}]}))))""")
        for _ in range(2):
            b.open(self.url)
            self.assertEqual(b.eval("[...document.querySelectorAll('#list li button:first-child')].map((n) => n.textContent)"), ["new", "middle", "old"])
            self.assertIn("about new", b.eval("document.getElementById('messages').innerText"))
        self.assertIsNone(b.eval("localStorage.getItem('kvasir.chats')"))

    def test_without_room_nothing_is_deleted_and_the_user_is_told(self):
        b = self.browser
        self.open()
        for i in range(2):
            b.eval(f"window.reply = 'answer {i}'")
            b.click("#new")
            self.ask(f"question {i}")
            b.wait(f"asked.length === {i + 1} && document.getElementById('stop').hidden")
        full = """(() => { let text = '';
            for (let n = 1 << 24; n >= 1; n >>= 1) try { localStorage.setItem('filler', text + 'x'.repeat(n)); text += 'x'.repeat(n); } catch { } })()"""
        b.eval(full)
        b.click("#new")
        b.eval("window.reply = 'not kept'")
        self.ask("one too many")
        b.wait("asked.length === 3 && document.getElementById('stop').hidden")
        self.assertTrue(b.eval("document.getElementById('unkept').checkVisibility()"))
        self.assertEqual(b.eval("document.querySelectorAll('#list li').length"), 3)
        b.eval("localStorage.removeItem('filler')")
        b.click(".message.assistant .tools button")
        b.wait("asked.length === 4 && document.getElementById('stop').hidden")
        self.assertFalse(b.eval("document.getElementById('unkept').checkVisibility()"))
        b.open(self.url)
        self.assertEqual(b.eval("document.querySelectorAll('#list li').length"), 3)

    def test_the_dashboard_shows_who_is_served_and_every_block(self):
        b = self.browser
        b.size(1200, 1250)
        for i in range(6):
            self.server.complete(f"{'a common beginning of some length ' * 8} and {i}", 30)
        streams = [self.server.stream(PLAIN, {"prompt": f"{'a common beginning of some length ' * 8} and {i}",
                                              "max_tokens": 3000, "ignore_eos": True}) for i in range(3)]
        for s in streams:
            next(iter(s))
        b.open(self.url + "/#cache")
        b.wait("document.querySelectorAll('#requests tbody tr').length === 3")
        b.wait("document.getElementById('served').innerText === '3 running, 0 waiting'")
        self.assertIn("prompt", b.eval("document.querySelector('#requests thead').innerText"))
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

    def test_a_dashboard_without_its_server_does_not_look_alive(self):
        b = self.browser
        b.size(1200, 900)
        stale = "document.getElementById('cache').classList.contains('stale')"
        sections = "[...document.querySelectorAll('#cache section')].filter((n) => n.checkVisibility()).length"
        with Server(check_idle=False) as server:
            url = f"http://{server.host}:{server.port}"
            b.open(url)
            b.eval("""window.shown = []; const real = fetch; window.fetch = (url, o) => { window.shown.push(%s); return real(url, o); }""" % sections)
            b.click("#tab-cache")
            b.wait(f"{sections} > 5 && !{stale}")
            self.assertEqual(b.eval("window.shown"), [0])
        b.wait(f"{stale} && document.getElementById('state').innerText.includes('trying again')")
        b.wait("/last seen [1-9]\\d* s ago/.test(document.getElementById('state').innerText)")
        b.wait("getComputedStyle(document.querySelector('#cache section')).filter === 'grayscale(1)'")
        b.problems.clear()  # that it cannot be reached
        b.requests.clear()

    def test_the_chart_of_steps_is_not_flattened_by_a_slow_one(self):
        b = self.browser
        b.open(self.url)
        top = lambda ms, limit=0: b.eval("import('/web/steps.js').then((m) => m.topOf(%s.map((ms) => ({ms, limit_ms: %d}))))" % (ms, limit))
        self.assertEqual(top([10] * 99 + [2000]), 10)
        self.assertEqual(top([10] * 99 + [2000], 50), 50)
        self.assertEqual(top([10] * 9 + [2000]), 10)
        self.assertEqual((top([10]), top([])), (10, 1))
        self.assertEqual([b.eval(f"import('/web/steps.js').then((m) => m.roundBelow({ms}))") for ms in (1, 4.9, 5, 73, 0.3)], [1, 2, 5, 50, 0.2])

    def test_blocks_are_as_large_as_their_place_allows(self):
        b = self.browser
        b.open(self.url)
        layout = lambda *n: b.eval("import('/web/map.js').then((m) => { const l = m.layoutOf(%d, %d, %d);"
                                   " return [l.each, l.size, Math.ceil(Math.ceil(%d / l.each) / l.columns) * l.size]; })" % (*n, n[0]))
        self.assertEqual(layout(10, 1100, 300), [1, 28, 28])
        for cells in (1, 100, 426, 4096, 16384):
            for width, most in ((1100, 320), (320, 300)):
                each, size, height = layout(cells, width, most)
                self.assertGreaterEqual(size, 5)
                self.assertLessEqual(height, most + 5, (cells, width))
                self.assertLessEqual(each, 6)

    def test_what_is_under_the_pointer_is_told(self):
        b = self.browser
        b.size(1200, 900)
        self.server.complete("a prompt of some length " * 9, 20)
        b.open(self.url + "/#cache")
        b.wait("document.getElementById('square').innerText.startsWith('1 square = ')")
        point = lambda what: b.mouse("mouseMoved", *b.eval(f"(() => {{ const r = document.getElementById('{what}').getBoundingClientRect();"
                                                           " return [r.left + 4, r.top + 4]; })()"))
        tip = "(document.getElementById('tip').hidden ? '' : document.getElementById('tip').innerText)"
        point("map")
        b.wait(f"/^blocks? 0.*\\n(cached, idle|one sequence), everybody\\n[\\d,]+ tokens, /.test({tip})")
        point("steps")
        b.wait(f"/^[\\d.]+ ms\\n\\d+ decode rows\\n\\d+ prompt rows/.test({tip})")
        b.mouse("mouseMoved", 600, 20)
        b.wait(f"{tip} === ''")
        self.assertTrue(b.eval("[...document.querySelectorAll('#memory td span')].some((n) => n.title.length > 5)"))

    def test_the_states_of_blocks_differ_in_lightness(self):
        b = self.browser
        b.open(self.url)
        for dark in (False, True):
            b.dark(dark)
            lights = b.eval("""['free', 'cached', 'one', 'shared', 'written'].map((name) => {
                const hex = getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
                const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255).map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; })""")
            lights.sort()
            for darker, lighter in zip(lights, lights[1:]):
                self.assertGreaterEqual(lighter / darker, 1.4, lights)

    def test_a_table_stays_while_it_says_the_same_or_is_selected(self):
        b = self.browser
        b.open(self.url + "/#cache")
        b.wait("!!document.querySelector('#counters table')")
        b.eval("""(() => { window.drawn = 0; const real = CanvasRenderingContext2D.prototype.clearRect;
            CanvasRenderingContext2D.prototype.clearRect = function (...at) { if (this.canvas.id === 'map') ++drawn; real.apply(this, at); };
            window.tables = ['counters', 'tenants', 'misses'].map((id) => document.querySelector(`#${id} table`));
            getSelection().selectAllChildren(document.querySelector('#counters td')); })()""")
        same = "['counters', 'tenants', 'misses'].map((id, i) => document.querySelector(`#${id} table`) === tables[i])"
        b.wait("drawn >= 2")
        self.assertEqual(b.eval(same), [True, True, True])
        self.server.complete("something", 20)
        b.wait("!document.querySelector('#tenants table').isSameNode(tables[1])")
        self.assertEqual(b.eval(same), [True, False, False])
        b.eval("getSelection().removeAllRanges()")
        b.wait("document.querySelector('#counters table') !== tables[0]")

    def test_each_step_is_in_the_chart_once(self):
        b = self.browser
        b.open(self.url)
        joined = lambda steps, more: b.eval("import('/web/dashboard.js').then((m) => { const ids = (l) => l.map((id) => ({id}));"
                                            f" return m.joined(ids({steps}), ids({more})).map((s) => s.id); }})")
        self.assertEqual(joined([], [3, 4]), [3, 4])
        self.assertEqual(joined([3, 4], []), [3, 4])
        self.assertEqual(joined([3, 4], [5]), [3, 4, 5])
        self.assertEqual(joined([3, 4, 5], [2, 3, 4, 5, 6]), [3, 4, 5, 6])
        self.assertEqual(joined([3, 4, 5], [1, 2]), [1, 2])  # the server was started again
        # The steps of a server that is idle are as many after the view was left and comes back.
        self.server.complete("something", 20)
        b.eval("""(() => { window.columns = new Set(); window.draws = 0;
            const {fillRect, clearRect} = CanvasRenderingContext2D.prototype;
            CanvasRenderingContext2D.prototype.clearRect = function (...at) { if (this.canvas.id === 'steps') { ++draws; columns.clear(); } clearRect.apply(this, at); };
            CanvasRenderingContext2D.prototype.fillRect = function (...at) { if (this.canvas.id === 'steps') columns.add(at[0]); fillRect.apply(this, at); };
        })()""")
        shown = []
        for _ in range(3):
            b.click("#tab-cache")
            b.eval("draws = 0")
            b.wait("draws > 1")
            shown.append(b.eval("columns.size"))
            b.click("#tab-chat")
        self.assertGreater(shown[0], 0)
        self.assertEqual(shown, shown[:1] * 3)

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
                b.click("#key button[value=ok]")
                self.idle()
                self.assertEqual(len(self.answers()), 1)
                b.click("#tab-cache")
                b.wait("document.getElementById('state').innerText.includes('operator')")
                b.click("#state-key")
                b.eval("document.getElementById('key-text').value = ''")
                b.type("#key-text", root)
                b.click("#key button[value=ok]")
                b.wait("document.getElementById('state').innerText.includes('live')")
                b.click("#tab-chat")
        # A 401 and a 403 are what was tested.
        b.problems = [p for p in b.problems if "401" not in p and "403" not in p]
        self.browser.requests.clear()


if __name__ == "__main__":
    unittest.main()
