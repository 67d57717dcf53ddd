"""The page in a browser, as a person uses it: chat, vote, correct, tag, review, compare, by mouse and by keyboard."""

from __future__ import annotations

import json
import re
import shutil

import pytest

pytest.importorskip("luthier_feedback")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser: pip install playwright")
expect = sync_api.expect
expect.set_options(timeout=30_000)

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>'; DROP TABLE luthier_feedback; --"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the PATH (apt install chromium)")
    with sync_api.sync_playwright() as driver:
        # Its sandbox wants rights that containers and the root user lack.
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory, server_at):
    room = tmp_path_factory.mktemp("page")
    challenger = room / "challenger"
    challenger.mkdir()
    settings = {"pause": 0.02, "greeting": "good day", "refuses": False}
    (challenger / "config.json").write_text(json.dumps(settings))
    server = server_at(room, str(challenger), "--feedback", str(room / "feedback.db"), pause=0.01)
    yield server
    server.close()


@pytest.fixture
def page(browser, served):
    context = browser.new_context()
    opened = context.new_page()
    wrong, asked = [], []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("dialog", lambda dialog: wrong.append(f"a script of the feedback ran: {dialog.message}"))
    opened.on("request", lambda request: asked.append(request.url))
    opened.wrong = wrong
    opened.goto(served.page)
    yield opened
    # Nothing that failed, nothing that the policy had to stop, and nothing from elsewhere.
    assert wrong == []
    assert [url for url in asked if not url.startswith(f"{served.url}/")] == []
    context.close()


def send(page, text):
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")
    return page.get_by_label("Answer", exact=True).last


def compare(page, text):
    field = page.get_by_label("Prompt for both")
    if not field.is_visible():
        page.get_by_role("button", name="Compare").click()
    field.fill(text)
    field.press("Enter")
    return page.get_by_label("Answer A", exact=True), page.get_by_label("Answer B", exact=True)


def whose(page):
    """The models that wrote A and B, once that is told."""
    expect(page.get_by_role("heading", name=re.compile("^[AB]: "))).to_have_count(2)
    return [heading.split()[1] for heading in page.locator("#compared h2").all_inner_texts()]


def rows(served, **query):
    return served.http.get("/v1/feedback", params=query).json()["data"]


def post(served, **feedback):
    answer = served.http.post("/v1/feedback", json={"prompt": "a", "answer": "b", **feedback})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_the_printed_address_lets_in_and_the_token_leaves_the_address(page, served):
    assert served.token in served.page
    expect(page.get_by_label("Model", exact=True)).to_have_value("toy")
    assert page.url == f"{served.url}/"
    page.reload()
    expect(page.get_by_label("Message")).to_be_focused()


def test_without_a_token_the_page_asks_for_it(browser, served):
    page = browser.new_page()
    page.goto(served.url)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("alert")).to_contain_text("lacks the server's token")
    expect(page.get_by_label("Message")).to_be_hidden()
    page.get_by_label("Token").fill(served.token)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_label("Message")).to_be_visible()
    page.context.close()


def test_an_answer_is_streamed_and_stopped(page, served):
    answer = send(page, "count 2000")
    expect(answer).to_contain_text("3 ")
    expect(answer).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(answer).to_contain_text("Stopped.")
    served.wait_until(lambda: served.metric("luthier_completions_active") == 0)
    assert sum(step == "count 2000: step" for step in served.steps) < 2000
    expect(answer.get_by_role("button", name="Good answer")).to_have_count(0)
    expect(send(page, "count 3")).to_contain_text("0 1 2 ")
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_label("Answer", exact=True)).to_have_count(0)


def test_an_answer_is_judged_by_mouse(page, served):
    page.get_by_label("Models may be trained on my feedback").check()
    page.get_by_label("My pseudonym").fill("p7")
    answer = send(page, "echo a b")
    answer.get_by_role("button", name="Bad answer").click()
    expect(answer.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
    answer.get_by_role("button", name="Correct").click()
    answer.get_by_label("What the model should have answered").fill("a b c")
    answer.get_by_role("button", name="Save").click()
    expect(answer.locator(".text").first).to_have_text("a b c")
    answer.get_by_label("Add a tag").fill("letters")
    answer.get_by_label("Add a tag").press("Enter")
    expect(answer.get_by_label("Tags", exact=True)).to_contain_text("letters")
    row = rows(served)[0]
    assert (row["answer"], row["vote"], row["correction"], row["tags"]) == ("a b ", -1, "a b c", ["letters"])
    assert (row["champion"], row["source"], row["person"], row["consent"]) == ("toy", "page", "p7", True)
    assert row["model"] == served.openai.models.retrieve("toy").hash
    # The conversation goes on from the correction, and the same answer has one row, however often it is judged.
    answer.get_by_role("button", name="Good answer").click()
    expect(answer.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    second = send(page, "echo x")
    second.get_by_role("button", name="Good answer").click()
    expect(second.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    last, before = rows(served)[:2]
    assert [turn["content"] for turn in last["prompt"]] == ["echo a b", "a b c", "echo x"]
    assert (before["id"], before["vote"], before["correction"]) == (row["id"], 1, "a b c")


def test_everything_is_done_by_keyboard(page, served):
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("echo one")
    page.keyboard.press("Enter")
    answer = page.get_by_label("Answer", exact=True)
    expect(answer).to_have_text(re.compile("^one "))
    page.keyboard.press("Tab")
    page.get_by_role("button", name="New conversation").focus()
    page.keyboard.press("j")
    expect(answer).to_be_focused()
    assert answer.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    page.keyboard.press("d")
    expect(answer.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("two")
    page.keyboard.press("Control+Enter")
    expect(answer.locator(".text").first).to_have_text("two")
    page.keyboard.press("3")
    expect(page.get_by_label("Feedback to review")).to_be_focused()
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("three")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status")).to_contain_text("Saved: edited.")
    assert [(row["correction"], row["state"]) for row in rows(served, limit=1)] == [("three", "edited")]
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("Keys without Ctrl or Alt are shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    expect(page.get_by_label("Message")).to_be_hidden()


def test_answers_are_reviewed_one_by_one(page, served):
    for row in rows(served, state="new", limit=50):
        served.http.post(f"/v1/feedback/{row['id']}/review", json={"state": "rejected"})
    good, bad, skipped = (post(served, answer=name, vote=1) for name in ("good", "bad", "skipped"))
    page.get_by_role("button", name="Review").click()
    card = page.get_by_label("Feedback to review")
    expect(page.get_by_text("3 to review")).to_be_visible()
    expect(card).to_contain_text("skipped")
    card.get_by_role("button", name="Skip").click()
    expect(card).to_contain_text("bad")
    page.keyboard.press("r")
    expect(card).to_contain_text("good")
    page.get_by_role("button", name="Undo").click()
    expect(card).to_contain_text("skipped")
    page.keyboard.press("s")
    expect(card).to_contain_text("bad")
    page.keyboard.press("r")
    expect(card).to_contain_text("good")
    # Somebody says something else of it while it is being looked at.
    served.http.post("/v1/feedback", json={"id": good, "prompt": "a", "answer": "good", "vote": -1})
    page.keyboard.press("a")
    expect(page.get_by_role("alert")).to_contain_text("was changed meanwhile")
    page.wrong.clear()  # The browser notes the refused request.
    expect(card).to_contain_text("skipped")
    page.keyboard.press("s")
    page.keyboard.press("a")  # Too early, or for the next card: never for the one that was skipped.
    expect(card).to_contain_text("good")
    page.keyboard.press("a")
    expect(page.get_by_text("What was skipped waits")).to_be_visible()
    states = {row["id"]: row["state"] for row in rows(served)}
    assert (states[good], states[bad], states[skipped]) == ("accepted", "rejected", "new")


def test_html_and_sql_are_text_in_every_field(page, served):
    turns = [{"role": role, "content": f"{HOSTILE} {role}"} for role in ("system", "user")]
    said = {"answer": HOSTILE, "correction": f"{HOSTILE} c", "tags": [HOSTILE], "source": HOSTILE, "person": HOSTILE}
    post(served, **said, prompt=turns, champion=HOSTILE, run=HOSTILE)
    page.get_by_role("button", name="Feedback", exact=True).click()
    page.get_by_label("State").select_option("new")
    row = page.locator("#rows > li").first
    for text in (f"{HOSTILE} system", f"{HOSTILE} user", f"{HOSTILE} c", f"from {HOSTILE}, {HOSTILE}"):
        expect(row.get_by_text(text, exact=True)).to_be_visible()
    expect(row.get_by_text(HOSTILE, exact=True)).to_have_count(3)  # The answer, the tag, the champion.
    page.get_by_role("button", name="Review").click()
    expect(page.get_by_label("Feedback to review").get_by_text(f"{HOSTILE} c", exact=True)).to_be_visible()
    page.get_by_role("button", name="Chat").click()
    answer = send(page, f"echo {HOSTILE}")
    expect(answer).to_contain_text("DROP TABLE luthier_feedback; --")
    answer.get_by_label("Add a tag").fill(HOSTILE)
    answer.get_by_label("Add a tag").press("Enter")
    expect(answer.get_by_label("Tags", exact=True)).to_contain_text(HOSTILE)
    assert page.locator("main img, main script").count() == 0
    assert rows(served, limit=1)[0]["tags"] == [HOSTILE]


def test_what_fails_is_told_and_can_be_asked_again(page):
    answer = send(page, "refuse this")
    expect(page.get_by_role("alert")).to_contain_text("not to the model's taste")
    page.wrong.clear()
    answer.get_by_role("button", name="Ask again").click()
    expect(page.get_by_label("Message")).to_have_value("refuse this")
    expect(send(page, "echo well")).to_contain_text("well")


def test_two_models_are_compared_by_keyboard_and_their_names_told_afterwards(page, served):
    page.get_by_role("button", name="New conversation").focus()
    page.keyboard.press("4")
    expect(page.get_by_label("Prompt for both")).to_be_focused()
    page.keyboard.type("greet")
    page.keyboard.press("Enter")
    choices = page.get_by_role("group", name="Which is better?")
    expect(choices).to_be_visible()
    expect(page.get_by_label("Comparison")).to_be_focused()
    texts = page.locator("#compared .answer .text").all_inner_texts()
    assert sorted(texts) == ["good day", "hello"]
    better = texts.index("good day")
    page.keyboard.press("ab"[better])
    assert whose(page)[better] == "challenger"
    expect(page.get_by_role("status")).to_contain_text(f"Saved: {'AB'[better]} is better.")
    expect(choices).to_have_count(0)
    expect(page.get_by_label("Choices so far").get_by_text("challenger is better").locator("..")).to_contain_text("1")
    last, before = rows(served, limit=2)
    worse, liked = sorted((last, before), key=lambda row: row["vote"])
    for row, model, vote, answer in ((worse, "toy", -1, "hello"), (liked, "challenger", 1, "good day")):
        assert (row["champion"], row["vote"], row["answer"]) == (model, vote, answer)
        assert row["model"] == served.openai.models.retrieve(model).hash
        assert (row["tags"], row["source"], row["consent"]) == (["comparison"], "page", False)
        assert last["id"] == f"{row['comparison']}-B"
        assert [turn["content"] for turn in row["prompt"]] == ["greet"]
    assert last["id"].removesuffix("-B") == before["id"].removesuffix("-A")
    expect(page.get_by_label("Prompt for both")).to_be_focused()


def test_a_comparison_is_blind(page, served):
    names = [text for name in ("toy", "challenger") for text in (name, served.openai.models.retrieve(name).hash)]
    pages, orders = set(), set()
    for _ in range(40):
        compare(page, "echo the same words")
        expect(page.get_by_role("button", name="Both are good")).to_be_visible()
        compared = page.locator("#compare").evaluate("each => each.outerHTML")
        assert [name for name in names if name in compared] == []
        pages.add(page.content())
        expect(page.get_by_role("button", name="A is better")).to_have_count(0)  # Of two answers that are one.
        page.keyboard.press("u")
        orders.add(tuple(whose(page)))
        if len(orders) == 2:
            break
    # Both orders were drawn, and the page was the same to the letter until the choice was made.
    assert orders == {("toy", "challenger"), ("challenger", "toy")}
    assert len(pages) == 1


def test_a_comparison_is_stopped_or_fails_without_a_choice(page, served):
    kept = rows(served, limit=1)
    first, second = compare(page, "count 2000")
    for answer in (first, second):
        expect(answer).to_contain_text("3 ")
    page.keyboard.press("Escape")
    for answer in (first, second):
        expect(answer).to_contain_text("Stopped.")
    assert sorted(whose(page)) == ["challenger", "toy"]
    served.wait_until(lambda: served.metric("luthier_completions_active") == 0)
    compare(page, "refuse this")
    expect(page.get_by_role("alert")).to_contain_text("not to the model's taste")
    page.wrong.clear()
    failed = page.locator("#compared section").nth(whose(page).index("toy"))
    expect(failed).to_contain_text("not to the model's taste")
    expect(page.locator("#compared section").nth(whose(page).index("challenger"))).to_contain_text("this")
    expect(page.get_by_role("group", name="Which is better?")).to_have_count(0)
    failed.get_by_role("button", name="Ask again").click()
    expect(page.get_by_label("Prompt for both")).to_have_value("refuse this")
    assert rows(served, limit=1) == kept


def test_a_choice_that_could_not_be_saved_is_made_again_and_counts_once(page, served):
    kept = len(rows(served, limit=50))
    posts = []

    def first_fails(route):
        posts.append([row["id"] for row in route.request.post_data_json])
        if len(posts) == 1:
            error = {"message": "the log is locked", "type": "server_error", "param": None, "code": "locked"}
            route.fulfill(status=503, json={"error": error})
        else:
            route.continue_()

    page.route("**/v1/feedback", first_fails)
    compare(page, "greet")
    page.get_by_role("button", name="Both are bad").click()
    expect(page.get_by_role("alert")).to_contain_text("the log is locked")
    page.wrong.clear()
    assert "challenger" not in page.locator("#compare").evaluate("each => each.outerHTML")
    assert len(rows(served, limit=50)) == kept
    page.get_by_role("button", name="Both are bad").click()
    assert sorted(whose(page)) == ["challenger", "toy"]
    assert posts == [posts[0]] * 2
    found = rows(served, limit=50)
    assert (len(found), [row["vote"] for row in found[:2]]) == (kept + 2, [-1, -1])
    expect(page.get_by_label("Choices so far").get_by_text("Both are bad").locator("..")).to_contain_text("1")


@pytest.mark.parametrize(
    ("models", "pair"), [(["other", "champion:x", "third"], ("champion:x", "other")), (["toy"], None)]
)
def test_the_champion_is_compared_with_the_first_other_model(page, models, pair):
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}
    page.route("**/v1/models", lambda route: route.fulfill(json=listed))
    page.reload()
    expect(page.get_by_label("Message")).to_be_visible()
    tab = page.get_by_role("button", name="Compare")
    expect(tab).to_have_count(1 if pair else 0)
    if not pair:
        return
    tab.click()
    first, second = page.get_by_role("combobox", name="Compare"), page.get_by_role("combobox", name="with")
    expect(first).to_have_value(pair[0])
    expect(second).to_have_value(pair[1])
    # None is compared with itself.
    first.select_option("other")
    expect(second).to_have_value("champion:x")


def test_a_narrow_window_needs_no_scrolling_sideways(page):
    page.set_viewport_size({"width": 320, "height": 640})
    send(page, f"echo {'x' * 300}")
    compare(page, f"echo {'x' * 300}")
    expect(page.get_by_role("button", name="Both are good")).to_be_visible()
    for view in ("Chat", "Feedback", "Review", "Compare"):
        page.get_by_role("button", name=view).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, view
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_role("heading", name="Keyboard")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_without_feedback_there_is_the_chat_alone(browser, start):
    server = start("--feedback", "none", "--no-token")
    page = browser.new_page()
    page.goto(server.page)
    expect(send(page, "echo well")).to_contain_text("well")
    expect(page.get_by_label("Answer", exact=True)).not_to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Good answer")).to_have_count(0)
    for view in ("Review", "Compare"):
        expect(page.get_by_role("button", name=view)).to_have_count(0)
    expect(page.get_by_label("My pseudonym")).to_be_hidden()
    page.context.close()
