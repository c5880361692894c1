"""What was said in private is known again at the beginning of a longer text, and nowhere else."""

from hypothesis import given
from hypothesis import strategies as st

from pd_device_client.privacy.private_words import PrivateWords


def test_a_longer_text_that_begins_so_is_private_and_no_other_is() -> None:
    kept = PrivateWords()
    assert not kept
    kept.add(["my secret", ""], None, "patients")
    assert kept
    for text in ("my secret", "my secret is this", "my secret\ud800"):
        assert kept.find([text], None) == "patients"
    for text in ("", "my secre", "My secret", "so my secret"):
        assert kept.find([text], None) is None
    assert kept.find(["x", "my secret too"], None) == "patients", "any of the prompts"


def test_a_conversation_is_known_by_its_id_whatever_it_says() -> None:
    kept = PrivateWords()
    kept.add(["a"], "c1", "")
    assert kept.find(["b"], "c1") == ""
    assert kept.find(["b"], "c2") is None
    assert kept.find(["ab"], "c2") == "", "the words count too"


def test_only_so_many_are_remembered_and_the_oldest_go_first() -> None:
    kept = PrivateWords(most=2)
    for i in range(4):
        kept.add([f"{'x' * i}text {i}"], f"c{i}", "")
    assert [kept.find([f"{'x' * i}text {i}"], None) for i in range(4)] == [None, None, "", ""]
    assert [kept.find(["-"], f"c{i}") for i in range(4)] == [None, None, "", ""]


@given(st.lists(st.text(max_size=6), max_size=8), st.text(max_size=12))
def test_it_finds_what_a_plain_search_finds(private: list[str], text: str) -> None:
    kept = PrivateWords()
    kept.add(private, None, "")
    expected = any(words and text.startswith(words) for words in private)
    assert (kept.find([text], None) is not None) == expected
