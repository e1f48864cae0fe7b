"""vLLM as it is, behind Stator."""

import concurrent.futures
import json
import random
import threading
import time

import stator_process
import vllm_cpu

PATIENCE_S = 300


def prompts(seed, count, lengths=(8, 31, 32, 33, 64, 100, 200, 333, 500, 800)):
    rng = random.Random(seed)
    return [
        [rng.randrange(400) for _ in range(lengths[i % len(lengths)])] for i in range(count)
    ]


def complete(server, prompt, tokens=8, **fields):
    body = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        **fields,
    }
    status, _, data = server.request("POST", "/v1/completions", body, timeout=PATIENCE_S)
    assert status == 200, data
    return json.loads(data)


def ids_of(answer):
    return answer["choices"][0]["token_ids"]


def wait_until(what, said):
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def test_tokens_are_the_engines_own(servers, serve):
    work = prompts(1, 20)
    wanted = [servers["one"].greedy(p, 8) for p in work]
    server = serve(servers["one"])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda p: ids_of(complete(server, p)), work))
    assert got == wanted


def test_what_was_there_before_is_known(servers, serve):
    """Both engines' histories are fetched; a prompt goes to the one that has its beginning."""
    one, two = servers["one"], servers["two"]
    [prompt] = prompts(2, 1, (256,))
    two.greedy(prompt, 2)
    server = serve(one, two, router_error_band=0)
    wait_until(lambda: server.log().count("KV events are followed") == 2, "both are followed")
    before = two.prefix_cache()[1]
    answer = complete(server, prompt + [9, 8, 7])
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 256
    assert two.prefix_cache()[1] - before == 256


def test_answers_say_what_the_engines_had(servers, serve):
    """Where prompts go is measured by `./dev bench engines_real`; here, that the numbers agree."""
    engines = [servers["one"], servers["two"]]
    families = prompts(3, 6, (192,))
    server = serve(*engines)
    before = sum(e.prefix_cache()[1] for e in engines)
    told = 0
    for turn in range(4):
        for number, family in enumerate(families):
            answer = complete(server, family + [turn, number, 1, 2], tokens=2)
            told += answer["usage"].get("prompt_tokens_details", {}).get("cached_tokens", 0)
    assert told == sum(e.prefix_cache()[1] for e in engines) - before
    # Each of the two computes a prefix once at most.
    assert told >= (4 - 2) * 6 * 192


def test_prompt_and_output_apart(servers, start):
    work = prompts(4, 50)
    wanted = [servers["one"].greedy(p, 12) for p in work]
    for role in ("prefill", "decode"):
        start(
            lambda folder, role=role: stator_process.StatorWorker(
                folder,
                role,
                engine=f"vllm={servers[role].url}",
                engine_connector="nixl",
                role=role,
                model_dir=vllm_cpu.model_folder(),
            )
        )
    door = start(stator_process.StatorFrontend, router_disaggregation="always")
    door.wait_workers("prefill", "decode")
    before = servers["decode"].transferred()
    assert [ids_of(complete(door, p, tokens=12)) for p in work] == wanted
    assert servers["decode"].transferred() - before == sum(map(len, work))


def test_a_bad_transfer_object_of_a_clients_reaches_nobody(servers, serve):
    """It would end a vLLM that decodes."""
    server = serve(servers["decode"], engine_connector="nixl")
    for fields in (
        {"kv_transfer_params": {"do_remote_prefill": True}},
        {"vllm_xargs": {"kv_transfer_params": {"do_remote_prefill": True}}},
    ):
        body = {"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 2, **fields}
        assert server.request("POST", "/v1/completions", body, timeout=PATIENCE_S)[0] in (200, 400)
    assert len(ids_of(complete(server, [1, 2, 3]))) == 8


def test_an_engine_is_killed_and_comes_back(servers, serve):
    """Last: its caches are empty afterwards. Nobody's answer is lost or changed."""
    one, two = servers["one"], servers["two"]
    work = prompts(5, 12, (40, 64))
    wanted = [one.greedy(p, 200) for p in work]
    server = serve(one, two)
    got = [None] * len(work)

    def ask(i):
        got[i] = ids_of(complete(server, work[i], tokens=200))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    two.kill()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got == wanted
    two.launch()
    two.wait()
    before = two.prefix_cache()[0]

    def used():
        for prompt in prompts(6, 8, (33,)):
            complete(server, prompt, tokens=2)
        return two.prefix_cache()[0] > before

    wait_until(used, "it gets requests again")
