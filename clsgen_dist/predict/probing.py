"""Raw numbers of the language of a tuned model: what it and its base say of given words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.predict.scoring import Continuation, Score, Scorer
from clsgen_dist.records import LanguageScores, Prediction, Row, SwapScore, TextScore


def score_language(
    bundle: Bundle,
    rows: Sequence[Row],
    predictions: Sequence[Prediction],
    passages: Sequence[tuple[str, str]],
    *,
    references: Sequence[Row] | None = None,
    token_budget: int,
    device: torch.device,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LanguageScores:
    """Scores explanations and general text under the tuned model and under its base.

    Rows and passages may be a rank's share: `LanguageScores.merge` puts shares together. Words of an explanation are
    scored after a verdict, which is given: of the head's decision and of every other label for explanations that
    follow the head, of the row's label for references, and for free ones that which the model wrote, if any. EOS is
    not scored, since a base model has never learned to stop there. Words over the bundle's limit of tokens are cut.

    Args:
        bundle: a loaded bundle.
        rows: rows whose explanations are scored; what is missing or empty is left out.
        predictions: of these rows, in their order.
        passages: name and words of each, as `general_passages` gives them.
        references: rows whose own explanations are scored, where they have one and a label; None: `rows`.
        token_budget: tokens of a batch.
        device: where the model is.
        on_progress: told how many texts are done, of how many.

    Raises:
        NumericsError: a log-likelihood is not a finite number.
    """
    scorer, tokenizer = Scorer(bundle.model, token_budget, device), bundle.tokenizer
    has_base = scorer.no_base is None
    labels, pairs = bundle.task.labels, list(zip(rows, predictions, strict=True))
    followed = [(row, labels.index(p.predicted), p.explanation) for row, p in pairs if p.explanation]
    free = [
        (row, None if p.free_verdict is None else labels.index(p.free_verdict), p.free_explanation)
        for row, p in pairs
        if p.free_explanation
    ]
    given = rows if references is None else references
    known = [(row, row.label, row.explanation) for row in given if row.explanation and row.label is not None]
    swap_pairs = _after_verdicts(
        tokenizer, [(row, label, words) for label in range(len(labels)) for row, _, words in followed]
    )
    reference_pairs, free_pairs = _after_verdicts(tokenizer, known), _after_verdicts(tokenizer, free)
    plain = [Continuation(ids[:1], ids[1:]) for ids in tokenizer.encode_plain([words for _, words in passages])]

    total = len(swap_pairs) + len(plain) + len(reference_pairs) + has_base * (len(reference_pairs) + len(free_pairs))
    done = 0

    def heard(num_texts: int) -> None:
        nonlocal done
        done += num_texts
        on_progress(done, total)

    # Those of one model together, so that each prompt is run once under it.
    tuned = scorer.score([*swap_pairs, *reference_pairs], on_progress=heard)
    based: list[Score] = []
    if has_base:
        based = scorer.score([*reference_pairs, *free_pairs], base=True, on_progress=heard)
    swapped, own = tuned[: len(swap_pairs)], tuned[len(swap_pairs) :]
    names = [name for name, _ in passages]
    return LanguageScores(
        swaps=_swaps([(row.id, label) for row, label, _ in followed], swapped),
        references=_texts([row.id for row, *_ in known], own, based[: len(known)]),
        free=_texts([row.id for row, *_ in free], [], based[len(known) :]),
        general=_general(scorer, names, plain, heard),
        no_base=scorer.no_base,
    )


def _after_verdicts(tokenizer: RowTokenizer, asked: Sequence[tuple[Row, int | None, str]]) -> list[Continuation]:
    """Words after the prompt of a row and the verdict of a label, which is given; without a label none is."""
    texts = list(dict.fromkeys(row.text for row, *_ in asked))
    prompt_of = dict(zip(texts, tokenizer.encode_prompts(texts), strict=True))
    words = tokenizer.encode_words([text for *_, text in asked])
    found = []
    for (row, label, _), ids in zip(asked, words, strict=True):
        verdict = [] if label is None else tokenizer.verdicts[label]
        room = max(1, tokenizer.max_explanation_tokens - len(verdict))
        found.append(Continuation(prompt_of[row.text], [*verdict, *ids[:room]], len(verdict)))
    return found


def _swaps(asked: Sequence[tuple[str, int]], scores: Sequence[Score]) -> list[SwapScore]:
    """Scores of all explanations under the first label, then under the second, ... by explanation."""
    return [
        SwapScore(
            id=id,
            num_tokens=scores[n].num_tokens,
            own=own,
            log_likelihoods=[score.log_likelihood for score in scores[n :: len(asked)]],
        )
        for n, (id, own) in enumerate(asked)
    ]


def _texts(ids: Sequence[str], tuned: Sequence[Score], base: Sequence[Score]) -> list[TextScore]:
    """Costs of texts by id; either model may be absent, and without both there is nothing to say."""
    return [
        TextScore(
            id=id,
            num_tokens=(tuned or base)[n].num_tokens,
            tuned=-tuned[n].log_likelihood if tuned else None,
            base=-base[n].log_likelihood if base else None,
        )
        for n, id in enumerate(ids)
        if tuned or base
    ]


def _general(
    scorer: Scorer, names: Sequence[str], plain: Sequence[Continuation], heard: Callable[[int], None]
) -> list[TextScore]:
    if scorer.no_base is not None:
        return _texts(names, scorer.score(plain, on_progress=heard), [])
    return [
        TextScore(id=name, num_tokens=both.num_tokens, tuned=-both.tuned, base=-both.base, kl=both.kl)
        for name, both in zip(names, scorer.compare(plain, on_progress=heard), strict=True)
    ]
