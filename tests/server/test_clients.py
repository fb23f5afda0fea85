"""The official client of the API, against the real server. Needs the package `openai` (tools/test_clients.sh)."""
import os
import unittest

import openai
from harness import TINY, Server

MODEL = os.environ.get("MODEL", TINY)


class OpenAiPackage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(model=MODEL)
        cls.client = openai.OpenAI(base_url=f"http://{cls.server.host}:{cls.server.port}/v1", api_key="none", max_retries=0)
        cls.model = cls.client.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        with cls.server:
            pass

    def chat(self, **more):
        return self.client.chat.completions.create(model=self.model, temperature=0, max_tokens=12,
                                                   messages=[{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
                                                   **more)

    def test_chats_whole_and_streamed_say_the_same(self):
        whole = self.chat()
        self.assertEqual(whole.choices[0].message.role, "assistant")
        self.assertIn(whole.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-1].usage.prompt_tokens_details.cached_tokens, whole.usage.prompt_tokens - 1)

    def test_several_choices_with_log_probabilities(self):
        answer = self.chat(n=3, seed=7, logprobs=True, top_logprobs=4)
        self.assertEqual([c.index for c in answer.choices], [0, 1, 2])
        for choice in answer.choices:
            tokens = choice.logprobs.content
            self.assertEqual(len(tokens[0].top_logprobs), 4)
            self.assertTrue(all(t.logprob <= t.top_logprobs[0].logprob for t in tokens))
        self.assertEqual(sum(len(c.logprobs.content) for c in answer.choices), answer.usage.completion_tokens)
        streamed = list(self.chat(n=2, stream=True, logprobs=True))
        self.assertTrue(any(c.choices[0].logprobs for c in streamed if c.choices and c.choices[0].logprobs))

    def test_plain_completions_with_echo(self):
        answer = self.client.completions.create(model=self.model, prompt=["One", "Two"], max_tokens=5, echo=True, logprobs=2,
                                                temperature=0)
        self.assertEqual(len(answer.choices), 2)
        self.assertTrue(answer.choices[1].text.startswith("Two"))
        self.assertIsNone(answer.choices[0].logprobs.token_logprobs[0])
        text = "".join(c.choices[0].text for c in self.client.completions.create(
            model=self.model, prompt="One", max_tokens=5, temperature=0, stream=True))
        self.assertEqual("One" + text, answer.choices[0].text)

    def test_what_is_not_supported_is_a_bad_request(self):
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(tools=[tool])
        self.assertEqual(caught.exception.param, "tools")
        with self.assertRaises(openai.BadRequestError):
            self.chat(response_format={"type": "json_object"})
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "a"}])
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.completions.create(model=self.model, prompt="word " * 9000, max_tokens=1)
        self.assertEqual(caught.exception.code, "context_length_exceeded")

    def test_a_stream_that_is_closed_is_cancelled(self):
        stream = self.client.completions.create(model=self.model, prompt="On and on", max_tokens=3000, stream=True,
                                                extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.server.wait_idle()


if __name__ == "__main__":
    unittest.main()
