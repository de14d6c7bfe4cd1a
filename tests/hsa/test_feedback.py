"""Only what follows <|feedback|> keeps its labels, and a missing token is never overlooked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenlab.core.errors import UserError
from qwenlab.core.tokenizer import train_tokenizer
from qwenlab.hsa.feedback import FEEDBACK_TOKEN, NothingToLearn, add_feedback_token, feedback_labels, feedback_token_id
from qwenlab.hsa.semantics import IGNORE_INDEX

F = 9  # the token's id in these tests


@pytest.fixture
def tokenizer():
    return train_tokenizer(["The cup is on the shelf."], 280)


def model_of(rows: int, tied: bool):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, num_key_value_heads=2, tie_word_embeddings=tied, **sizes))


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, F), min_size=1, max_size=30), occurrence=st.sampled_from(["first", "last"]))
def test_labels_are_masked_up_to_the_token_and_unchanged_behind_it(ids, occurrence):
    labels = list(range(100, 100 + len(ids)))
    before = list(ids), list(labels)
    masked = feedback_labels(ids, labels, F, occurrence, "keep")
    # The seed's loop, with `last` as the same on the list read backwards.
    spots = [n for n, token in enumerate(ids) if token == F]
    spot = -1 if not spots else spots[0] if occurrence == "first" else spots[-1]
    assert masked == [IGNORE_INDEX if n <= spot else label for n, label in enumerate(labels)]
    assert (ids, labels) == before


def test_tensors_give_a_tensor_and_stay_as_they_are():
    ids, labels = torch.tensor([1, F, 2, F, 3]), torch.tensor([5, 6, 7, 8, 9])
    assert feedback_labels(ids, labels, F).tolist() == [-100, -100, 7, 8, 9]
    assert feedback_labels(ids, labels, F, "last").tolist() == [-100, -100, -100, -100, 9]
    assert labels.tolist() == [5, 6, 7, 8, 9]


def test_a_missing_token_is_an_error_unless_asked_otherwise():
    with pytest.raises(NothingToLearn, match=r"no <\|feedback\|> \(id 9\) among 2 tokens"):
        feedback_labels([1, 2], [1, 2], F)
    assert feedback_labels([1, 2], [1, 2], F, missing="mask") == [-100, -100]
    assert feedback_labels([1, 2], [1, 2], F, missing="keep") == [1, 2]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([1, F], [1], F), "expected one example, both of the same length"),
        ((torch.tensor([[F]]), torch.tensor([[1]]), F), "expected one example"),
        (([F], [1], F, "second"), "occurrence 'second'"),
        (([F], [1], F, "first", "drop"), "missing 'drop'"),
    ],
)
def test_bad_input_is_refused(args, message):
    with pytest.raises(UserError, match=message):
        feedback_labels(*args)


def test_a_tokenizer_without_the_token_is_refused_and_the_trap_is_real(tokenizer):
    assert tokenizer.decode(tokenizer.encode(FEEDBACK_TOKEN)[0]) == "<"
    with pytest.raises(UserError, match=r"expected one of its own\. Add it with add_feedback_token"):
        feedback_token_id(tokenizer)


def test_an_unknown_token_is_no_feedback_token():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    with pytest.raises(UserError, match="expected one of its own"):
        feedback_token_id(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"))


def test_the_token_is_added_once_and_survives_saving(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    length, specials = len(tokenizer), set(tokenizer.all_special_tokens)
    added = add_feedback_token(tokenizer)
    assert added == add_feedback_token(tokenizer) == length and len(tokenizer) == length + 1
    assert specials <= set(tokenizer.all_special_tokens)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert feedback_token_id(again) == added
    ids = again.encode(f"The cup{FEEDBACK_TOKEN}is", add_special_tokens=False)
    assert ids.count(added) == 1 and again.decode(ids, skip_special_tokens=True) == "The cupis"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 20])
def test_its_embedding_starts_at_the_mean_and_the_matrix_never_shrinks(tokenizer, tied, spare):
    """Qwen's matrices have more rows than the tokenizer has tokens: those count neither for the mean nor are cut."""
    length = len(tokenizer)
    model = model_of(length + spare, tied)
    before = [layer.weight.detach().clone() for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    added = add_feedback_token(tokenizer, model)
    for layer, old in zip((model.get_input_embeddings(), model.get_output_embeddings()), before, strict=True):
        assert layer.weight.shape[0] == max(length + spare, length + 1)
        assert torch.equal(layer.weight[:length], old[:length])
        torch.testing.assert_close(layer.weight[added], old[:length].mean(0))
    assert model(input_ids=torch.tensor([[added]])).logits.isfinite().all()


def test_a_second_call_leaves_a_trained_row_alone(tokenizer):
    model = model_of(len(tokenizer), True)
    added = add_feedback_token(tokenizer, model)
    with torch.no_grad():
        model.get_input_embeddings().weight[added] = 7
    add_feedback_token(tokenizer, model)
    assert (model.get_input_embeddings().weight[added] == 7).all()


@pytest.mark.parametrize("earlier", ["<|feedback|>", "<|other|>"])
def test_a_model_that_is_behind_its_tokenizer_catches_up(tokenizer, earlier):
    model = model_of(len(tokenizer), False)
    old = model.get_output_embeddings().weight.detach().clone()
    tokenizer.add_tokens([earlier], special_tokens=True)
    added = add_feedback_token(tokenizer, model)
    new = model.get_output_embeddings().weight[len(old) :]
    assert len(old) + len(new) == len(tokenizer) == added + 1
    torch.testing.assert_close(new, old.mean(0).expand_as(new))
