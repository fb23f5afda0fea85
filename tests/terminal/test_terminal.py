"""The chat in a terminal, as somebody at a keyboard has it: the real binary on a pseudo-terminal."""
import codecs
import errno
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "server"))
from harness import BINARY, PATIENCE, TINY, wait_until  # noqa: E402

PROMPT, MORE, CTRL_C, CTRL_D, UP = ">>> ", "... ", "\x03", "\x04", "\x1b[A"
REPLIED = " from the cache]\x1b[0m\r\n" + PROMPT
TOKENS = 20


def answer(prompt, *flags, tokens=TOKENS):
    """What the model says to a first message, asked without a terminal."""
    return subprocess.run([BINARY, "run", TINY, "-q", "--temp", "0", "-n", str(tokens), "--ignore-eos", "--ctx", "4096", "-p", prompt,
                           *flags], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()


def shown(text):
    """A model's text as a terminal gets it: control characters as pictures, lines ended by the driver."""
    control = {**{i: 0x2400 + i for i in range(0x20)}, 0x7F: 0x2421, **{i: 0xFFFD for i in range(0x80, 0xA0)}}
    return text.translate({**control, ord("\t"): "\t", ord("\n"): "\r\n"})


class Terminal:
    """`with Terminal(flags) as t:`; it begins at its first prompt, and must end with code 0."""

    def __init__(self, *flags, tokens=TOKENS, ctx=4096, columns=80, state=None, stdout=None, env=None):
        self.folder = tempfile.TemporaryDirectory()
        self.state = state or self.folder.name
        self.master, keyboard = pty.openpty()
        self.resize(columns)
        env = {"TERM": "xterm", "XDG_STATE_HOME": self.state, "XDG_CONFIG_HOME": "/nonexistent", "HOME": self.folder.name, **(env or {})}
        inherited = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        # A terminal of its own, so that its Ctrl-C and its changes of size come as signals.
        take = lambda: fcntl.ioctl(keyboard, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen([BINARY, "run", TINY, "--temp", "0", "--ignore-eos", "-n", str(tokens), "--ctx", str(ctx), *flags],
                                        stdin=keyboard, stdout=stdout or keyboard, stderr=keyboard, env={**inherited, **env},
                                        start_new_session=True, preexec_fn=take)
        os.close(keyboard)
        self.all = ""  # that was shown so far
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        if stdout is None:
            self.until(PROMPT)

    @property
    def history(self):
        return os.path.join(self.state, "kvasir", "history")

    def resize(self, columns, rows=24):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys):
        os.write(self.master, keys.encode())

    def wait_for_editor(self):
        """A prompt is shown a moment before the editor, and not the driver, takes keys and echoes them."""
        wait_until("the editor", lambda: not termios.tcgetattr(self.master)[3] & termios.ICANON)

    def read(self):
        """Some of what comes; false at the end."""
        if not select.select([self.master], [], [], PATIENCE)[0]:
            raise AssertionError(f"nothing came in {PATIENCE} s after {self.all[-300:]!r}")
        try:
            got = os.read(self.master, 4096)
        except OSError as e:
            if e.errno != errno.EIO:  # nobody has the other side any more
                raise
            got = b""
        self.all += self._decoder.decode(got)
        return bool(got)

    def until(self, what, begin=None):
        """What comes until `what` is last; `begin`: where in `all` it began."""
        begin = len(self.all) if begin is None else begin
        end = time.monotonic() + PATIENCE
        while not (self.all.endswith(what) and len(self.all) >= begin + len(what)):
            if not self.read() or time.monotonic() > end:
                raise AssertionError(f"no {what!r} came: {self.all[begin:][-1000:]!r}")
        if what.endswith((PROMPT, MORE)):
            self.wait_for_editor()
        return self.all[begin:].removesuffix(what)

    def say(self, text, then=PROMPT):
        """Types a line; what is shown after it, up to the next prompt."""
        begin = len(self.all)
        self.press(text + "\r")
        return self.until(then, begin).partition("\r\n")[2]

    def end(self):
        try:
            while self.read():
                pass
            return self.process.wait(PATIENCE)
        finally:
            self.close()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if error is not None:
                print(repr(self.all[-3000:]))
                return
            self.press(CTRL_D)
            code = self.end()
            assert code == 0, f"exit code {code}: {self.all[-3000:]!r}"
        finally:
            if error is not None:
                self.close()
            self.folder.cleanup()


def reply(text):
    """Of what a turn showed: the model's words, without what the program says of them in brackets."""
    return re.sub(r"(\[(--max-tokens|stopped|first token)[^\r]*\r\n)*\Z", "", re.sub(r"\x1b\[[0-9;]*m", "", text))


class Chat(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.hello = shown(answer("hello"))
        cls.lines = shown(answer("hello\n  two lines"))

    def test_two_turns_answer_and_the_second_finds_the_first_in_the_cache(self):
        self.assertRegex(answer("hello"), r"[\x00-\x08\x0b-\x1f]", "no control characters: the test tests less")
        with Terminal() as t:
            first = t.say("hello")
            self.assertEqual(reply(first), self.hello)
            counts = r"\| prompt (\d+) tokens, (\d+) from the cache\]"
            prompt, cached = map(int, re.search(counts, first).groups())
            self.assertEqual(cached, 0)
            second = t.say("and more")
            # All that was computed: of the last token no K and V were needed.
            self.assertEqual(int(re.search(counts, second)[2]), prompt + TOKENS - 1)
            self.assertNotIn(reply(second), ("", self.hello))
            t.say("/clear")
            self.assertEqual(reply(t.say("  hello ")), self.hello)

    def test_the_system_message_is_the_one_that_was_set_last(self):
        with Terminal() as t:
            t.say("/system Be brief.")
            brief = reply(t.say("hello"))
            self.assertEqual(brief, shown(answer("hello", "--system", "Be brief.")))
            self.assertNotEqual(brief, self.hello)
            t.say("/clear")
            self.assertEqual(reply(t.say("hello")), brief)
            self.assertIn("Be brief.", t.say("/system"))
            self.assertNotEqual(reply(t.say("and more")), brief, "to be told it forgets nothing")
            t.say('/system ""')
            self.assertEqual(reply(t.say("hello")), shown(answer("hello", "--system", "")))

    def test_what_is_pasted_is_one_message_however_many_lines_it_has(self):
        with Terminal() as t:
            for text, want in (("hello\r  two lines", self.lines), ("hello", self.hello), ("/exit\rhello", shown(answer("/exit\nhello")))):
                begin = len(t.all)
                t.press(f"\x1b[200~{text}\x1b[201~\r")
                self.assertTrue(reply(t.until(PROMPT, begin)).endswith("\r\n" + want), t.all)
                t.say("/clear")

    def test_three_quotes_take_several_lines_as_one_message(self):
        with Terminal() as t:
            for lines in (['"""hello', '  two lines"""'], ['"""', "hello", '  two lines"""'], ['"""hello', '  two lines"""  ']):
                for line in lines[:-1]:
                    self.assertEqual(t.say(line, then=MORE), "")
                self.assertEqual(reply(t.say(lines[-1])), self.lines, lines)
                t.say("/clear")
            t.press(UP + UP)  # the message before the command, as one
            self.assertEqual(reply(t.say("")).split("\r\n", 1)[-1], self.lines)
            t.say("/clear")
            self.assertEqual(reply(t.say('"""hello"""')), self.hello)
            t.say("/clear")
            self.assertEqual(reply(t.say('"""/exit"""')), shown(answer("/exit")), "what is between quotes is no command")

    def test_ctrl_c_stops_a_reply_and_the_chat_goes_on(self):
        # More than a terminal holds: nobody reads it, so it cannot be at its end. With Ctrl-C the driver throws away
        # what was not read yet.
        with Terminal(tokens=59000, ctx=60000) as t:
            begin = len(t.all)
            t.press("hello\r")
            while len(t.all) < begin + 200:
                t.read()
            t.press(CTRL_C)
            stopped = t.until(PROMPT, begin)
            self.assertIn("[stopped]\r\n", stopped)
            told = int(re.search(r"\| (\d+) tokens, ", stopped)[1])
            self.assertLess(told, 59000)
            t.say("/clear")
            begin = len(t.all)
            t.press("hello\r")
            while self.hello[:10] not in t.all[begin:]:  # it answers again
                t.read()
            t.press(CTRL_C)
            self.assertIn("[stopped]", t.until(PROMPT, begin))

    def test_ctrl_c_throws_away_what_was_typed(self):
        with Terminal() as t:
            for typed, prompt in (("not this", PROMPT), ('"""not\rthis', MORE)):
                begin = len(t.all)
                t.press(typed.split("\r")[0] + ("\r" if "\r" in typed else ""))
                if prompt == MORE:
                    t.until(MORE, begin)
                    t.press("this")
                t.until("this", begin)
                begin = len(t.all)
                t.press(CTRL_C)
                t.until("\r\n" + PROMPT, begin)
                self.assertEqual(reply(t.say("hello")), self.hello)
                t.say("/clear")
            with open(t.history) as file:
                self.assertNotIn("this", file.read())

    def test_ctrl_c_between_a_reply_and_the_next_message_is_no_end(self):
        with Terminal() as t:
            for _ in range(20):
                begin = len(t.all)
                t.press("hello\r")
                while "from the cache]" not in t.all[begin:]:
                    t.read()
                begin = len(t.all)
                t.press(CTRL_C)  # meant for the reply, which has just ended
                t.until("\r\n" + PROMPT, begin)
            self.assertNotIn("[stopped]", t.all)

    def test_a_key_after_half_a_character_is_not_lost(self):
        with Terminal() as t:
            begin = len(t.all)
            os.write(t.master, b"hel\xe9lo\r")  # Latin-1
            self.assertEqual(reply(t.until(PROMPT, begin).partition("\r\n")[2]), self.hello)

    def test_ctrl_d_leaves_with_code_0_and_so_does_exit(self):
        with Terminal() as t:
            t.say('"""a message', then=MORE)
            begin = len(t.all)
            t.press(CTRL_D)  # leaves the message alone
            t.until("\r\n" + PROMPT, begin)
            self.assertEqual(reply(t.say("hello")), self.hello)
        for word in ("/exit", "/quit", "/bye"):
            t = Terminal()
            t.press(word + "\r")
            self.assertEqual(t.end(), 0, t.all)
            t.folder.cleanup()

    def test_the_history_is_kept_for_its_owner_alone(self):
        with tempfile.TemporaryDirectory() as state:
            for _ in range(2):  # the second time there is one, that everybody may read
                with Terminal(state=state) as t:
                    t.say("hello")
                    self.assertEqual(stat.S_IMODE(os.stat(t.history).st_mode), 0o600)
                os.chmod(t.history, 0o644)
            with Terminal(state=state) as t:
                t.press(UP)
                self.assertEqual(reply(t.say("")), self.hello)

    def test_a_history_that_cannot_be_kept_is_no_reason_not_to_talk(self):
        with tempfile.NamedTemporaryFile() as file, Terminal(state=file.name) as t:
            self.assertEqual(reply(t.say("hello")), self.hello)

    def test_no_color_gets_no_colours_and_a_simple_terminal_no_escape_sequences(self):
        for env, unwanted in (({}, None), ({"NO_COLOR": "1"}, r"\x1b\[[0-9;]*m"), ({"TERM": "dumb"}, "\x1b")):
            with Terminal(env=env) as t:
                self.assertEqual(reply(t.say("hello")), self.hello)
                for command in ("/help", "/memory", "/nothing"):
                    t.say(command)
                if unwanted is None:
                    self.assertIn("\x1b[2m", t.all, "no colours at all: the test tests nothing")
                else:
                    self.assertNotRegex(t.all, unwanted)

    def test_a_pipe_gets_the_reply_alone(self):
        t = Terminal(stdout=subprocess.PIPE)
        try:
            t.until("\r\n")
            t.press("hello\r")
            t.until("from the cache]\r\n")
            t.press(CTRL_D)
            piped = t.process.stdout.read().decode()
            self.assertEqual(t.end(), 0)
        finally:
            t.process.stdout.close()
            t.folder.cleanup()
        self.assertEqual(piped.rstrip("\n"), answer("hello").rstrip("\n"))
        self.assertNotIn("\x1b", t.all)

    def test_a_narrow_window_and_one_that_changes_do_not_break_it(self):
        long = " ".join(f"word{i}" for i in range(30))
        want = shown(answer(long))
        for columns in (10, 3, 1, 0):
            with Terminal(columns=columns) as t:
                self.assertEqual(reply(t.say("hello")), self.hello, columns)
        with Terminal(columns=10) as t:
            for columns in (200, 10, 5, 80):
                begin = len(t.all)
                t.press(long[:50])
                t.resize(columns)
                t.press(long[50:] + "\r")
                # Not the prompt that is drawn again before anything was typed.
                self.assertTrue(reply(t.until(REPLIED, begin) + REPLIED.removesuffix(PROMPT)).endswith("\r\n" + want), columns)
                t.say("/clear")
        with Terminal(columns=20) as t:  # what was typed is shown as it wraps now
            t.press(long[:50])
            t.until(long[40:50])
            begin = len(t.all)
            t.resize(200)
            t.until("\r\x1b[J" + PROMPT + long[:50], begin)
            begin = len(t.all)
            t.resize(30)  # two rows now, of which the cursor is in the second
            t.until(long[40:50], begin)
            self.assertIn("\x1b[1A\r\x1b[J" + PROMPT + long[:26], t.all[begin:])
            t.press(CTRL_C)
            t.until("\r\n" + PROMPT)
        with Terminal(tokens=3000) as t:  # amid a reply
            want = shown(answer("hello", tokens=3000))
            begin = len(t.all)
            t.press("hello\r")
            for columns in (10, 200, 1, 80):
                t.read()
                t.resize(columns)
            self.assertTrue(reply(t.until(REPLIED, begin) + REPLIED.removesuffix(PROMPT)).endswith("\r\n" + want))

    def test_a_full_context_leaves_the_oldest_turns_out_and_the_chat_goes_on(self):
        with Terminal(ctx=256, tokens=40) as t:
            told = []
            for turn in range(10):
                said = t.say(f"a message, the one with number {turn}")
                told += re.findall(r"\[the oldest (turn|\d+ turns) no longer fits? into the context of 256 tokens and (?:is|are) left out; "
                                   r"/clear starts anew\]\r\n", said)
                self.assertIn("| 40 tokens, ", said)
            self.assertGreater(len(told), 3)
            self.assertEqual(sorted({int(s.split()[0]) if " " in s else 1 for s in told})[-1], int(told[-1].split()[0]))
            # One that is too long alone is refused; what was said before it is still there.
            self.assertIn("/clear starts anew", t.say("too long " * 100))
            self.assertIn("| 40 tokens, ", t.say("hello"))
            t.say("/clear")
            self.assertNotIn("left out", t.say("hello"))

    def test_tabs_are_kept_typed_and_pasted(self):
        with Terminal() as t:
            self.assertEqual(reply(t.say("hello\tthere")), shown(answer("hello\tthere")))
            for keys in ("\tif x:\n\t\ty", "/exit\nis no command", "ä\nß"):
                t.say("/clear")
                begin = len(t.all)
                t.press(f"\x1b[200~{keys}\x1b[201~\r")
                self.assertTrue(reply(t.until(PROMPT, begin)).endswith("\r\n" + shown(answer(keys))), keys)

    def test_what_is_typed_ahead_is_not_shown_in_the_reply_and_not_lost(self):
        with Terminal(tokens=3000) as t:
            begin = len(t.all)
            t.press("hello\r")
            while len(t.all) < begin + 200:
                t.read()
            t.press("typed ahead")
            self.assertTrue(reply(t.until(PROMPT + "typed ahead", begin)).endswith("\r\n" + shown(answer("hello", tokens=3000))))
            begin = len(t.all)
            t.press(CTRL_C)
            t.until("\r\n" + PROMPT, begin)
        for how in ("interrupted", "ended"):  # it shows again what is typed
            t = Terminal(tokens=59000, ctx=60000)
            begin = len(t.all)
            t.press("hello\r")
            while len(t.all) < begin + 200:
                t.read()
            self.assertFalse(termios.tcgetattr(t.master)[3] & termios.ECHO)
            if how == "ended":
                t.process.send_signal(signal.SIGTERM)
                self.assertEqual(t.process.wait(PATIENCE), -signal.SIGTERM)
            else:
                t.press(CTRL_C)
                t.until(PROMPT, begin)
                t.press("\x04")
                t.process.wait(PATIENCE)
            self.assertTrue(termios.tcgetattr(t.master)[3] & termios.ECHO)
            t.close()
            t.folder.cleanup()

    def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(self):
        for end in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            t = Terminal()
            t.process.send_signal(end)
            self.assertEqual(t.process.wait(PATIENCE), -end)
            flags = termios.tcgetattr(t.master)[3]
            self.assertTrue(flags & termios.ICANON and flags & termios.ECHO, end)
            while t.read():
                pass
            self.assertTrue(t.all.endswith("\x1b[?2004l"), t.all)
            t.close()
            t.folder.cleanup()

    def stop_and_continue(self, t):
        """What Ctrl-Z and fg of a shell come to."""
        t.process.send_signal(signal.SIGSTOP)
        os.waitpid(t.process.pid, os.WUNTRACED)
        mode = termios.tcgetattr(t.master)
        mode[3] |= termios.ICANON | termios.ECHO
        termios.tcsetattr(t.master, termios.TCSANOW, mode)
        t.process.send_signal(signal.SIGCONT)

    def test_after_ctrl_z_and_fg_it_goes_on_where_it_was(self):
        with Terminal() as t:
            t.press("hel")
            t.until("hel")
            begin = len(t.all)
            self.stop_and_continue(t)
            self.assertIn("\x1b[?2004h", t.until(PROMPT + "hel", begin))
            t.wait_for_editor()
            self.assertEqual(reply(t.say("lo")), self.hello)
        with Terminal(tokens=59000, ctx=60000) as t:
            begin = len(t.all)
            t.press("hello\r")
            while len(t.all) < begin + 200:
                t.read()
            self.stop_and_continue(t)
            wait_until("the reply alone is shown", lambda: not termios.tcgetattr(t.master)[3] & termios.ECHO)
            t.press(CTRL_C)
            t.until(PROMPT, begin)

    def test_help_names_all_commands(self):
        with Terminal() as t:
            lines = t.say("/help").splitlines()
            commands = [line.split()[0] for line in lines if line.startswith("/")]
            self.assertEqual(commands, ["/help", "/clear", "/system", "/memory", "/exit"])
            for line in lines:
                self.assertRegex(line, r"\A\S+( [A-Z]+)?  +\S", "a command, and what it does")
            for name in ('"""', "Ctrl-C", "Ctrl-D"):
                self.assertIn(name, "\n".join(lines))
            for command in commands[:-1]:
                self.assertNotIn("there is no command", t.say(command))
            for word in ("/nothing", "/clear all", "/helpme", "/"):
                self.assertIn(f"there is no command {word}; /help lists them", t.say(word))


if __name__ == "__main__":
    unittest.main()
