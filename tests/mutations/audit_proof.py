"""The rules of verifying, anchoring and proving the audit."""

from tests.mutations import Mutation

WALK = "showcase/audit/application/verifying.py"
ANCHORS = "showcase/audit/application/verifying_anchors.py"
MAKING = "showcase/audit/application/anchoring.py"
PROVING = "showcase/audit/application/proving.py"
READING = "showcase/audit/infrastructure/proof.py"
KEEPING = "showcase/audit/infrastructure/anchors.py"
DOMAIN = "showcase/audit/domain"


def unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_audit_proof.py::{name}" for name in names)


def attack(*names: str) -> tuple[str, ...]:
    return unit(*(f"test_attack_is_found_and_named_first[{name}]" for name in names))


MUTATIONS = (
    Mutation(
        rule="a seal's hash is of its ids too",
        file=f"{DOMAIN}/seals.py",
        old='b"\\x02" + self.root + self.names + json',
        new='b"\\x02" + self.root + json',
        tests=attack("edit_an_id_in_record_and_seal"),
    ),
    Mutation(
        rule="a seal is what its hash says",
        file=WALK,
        old="if (kept.id, kept.root, kept.hash) != (seal.id, link.root.hex(), link.hash):",
        new="if False:",
        tests=attack("edit_a_seal", "edit_the_leaves_of_a_seal"),
    ),
    Mutation(
        rule="a seal names the one before it",
        file=WALK,
        old="if seal.first == chain.next and seal.previous not in chain.hashes:",
        new="if False:",
        tests=unit("test_chain_shows_by_itself_what_needs_no_anchor"),
    ),
    Mutation(
        rule="a seal begins where the one before it ends",
        file=WALK,
        old="        if is_gap:\n",
        new="        if False:\n",
        tests=unit("test_chain_shows_by_itself_what_needs_no_anchor"),
    ),
    Mutation(
        rule="what lies between two seals is in none",
        file=WALK,
        old="            if not is_gap:\n",
        new="            if False:\n",
        tests=attack("insert_before_everything"),
    ),
    Mutation(
        rule="a seal that cannot be read is told",
        file=WALK,
        old="        if kept.seal is None:\n",
        new="        if kept.seal is None:\n            return\n        if kept.seal is None:\n",
        tests=unit("test_chain_shows_by_itself_what_needs_no_anchor"),
    ),
    Mutation(
        rule="contents are compared, not only ids",
        file=WALK,
        old="(seal.ids[at:to], seal.leaves[at:to]) == (tuple(part.ids), tuple(part.leaves))",
        new="seal.ids[at:to] == tuple(part.ids)",
        tests=attack("edit_a_value"),
    ),
    Mutation(
        rule="a record in a sealed range is one of its seal",
        file=WALK,
        old='                await self._found(Kind.INSERTED, self._here, offset, id_, "nothing here", "a record")\n',
        new="                pass\n",
        tests=attack("insert_into_a_sealed_range"),
    ),
    Mutation(
        rule="records stand in the order in which they were sealed",
        file=WALK,
        old="            if id_ != other:\n",
        new="            if False:\n",
        tests=attack("swap_offsets"),
    ),
    Mutation(
        rule="another's content is told from an edited one",
        file=WALK,
        old="if look is not None and look.own in others:",
        new="if False:",
        tests=attack("swap_contents", "swap_contents_of_two_seals"),
    ),
    Mutation(
        rule="what is missing is looked for elsewhere before it counts as removed",
        file=WALK,
        old="                if look is None:\n",
        new="                if True:\n",
        tests=unit("test_told_twice_is_no_tampering_wherever_it_arrived_first"),
    ),
    Mutation(
        rule="a place that is sealed without it is none for a record",
        file=WALK,
        old="or (other is not None and _knows_not(other, look, id_))",
        new="",
        tests=attack("move_to_another_partition", "swap_offsets_of_two_seals"),
    ),
    Mutation(
        rule="the last records of a seal are looked for too",
        file=WALK,
        old="        if is_whole and at < len(seal.ids):\n            self._rest(at)\n",
        new="",
        tests=attack("remove_the_last_record_of_a_seal"),
    ),
    Mutation(
        rule="only new records may have no seal",
        file=WALK,
        old="now - self._grace <= at <= now + AHEAD",
        new="at <= now + AHEAD",
        tests=attack("insert_after_the_last_seal", "insert_into_an_unknown_topic"),
    ),
    Mutation(
        rule="no record is from the future",
        file=WALK,
        old="now - self._grace <= at <= now + AHEAD",
        new="now - self._grace <= at",
        tests=attack("insert_as_if_recorded_in_the_future"),
    ),
    Mutation(
        rule="a document is read only as it is written",
        file=READING,
        old="around.keys() == AROUND and encode(around) == written",
        new="AROUND <= around.keys()",
        tests=(*attack("append_a_second_content"), *unit("test_second_field_around_the_content_is_seen_as_well")),
    ),
    Mutation(
        rule="lost messages are no tampering",
        file=f"{DOMAIN}/findings.py",
        old="return self.kind is not Kind.LOST",
        new="return True",
        tests=unit("test_lost_messages_are_told_and_are_no_tampering"),
    ),
    Mutation(
        rule="findings are in the order of their places",
        file="showcase/audit/application/books.py",
        old="        self.findings.sort(key=lambda finding: finding.place)\n",
        new="",
        tests=attack("edit_and_seal_all_again", "swap_offsets_of_two_seals"),
    ),
    Mutation(
        rule="the seals that anchors name are there",
        file=ANCHORS,
        old="            if found == (head.next, head.hash):\n",
        new="            if True:\n",
        tests=attack("cut_the_tail", "edit_and_seal_all_again", "remove_a_partition"),
    ),
    Mutation(
        rule="an anchor is signed by our key",
        file=ANCHORS,
        old="            if not self._check(signed):\n",
        new="            if False:\n",
        tests=unit("test_signature_of_one_statement_is_none_of_another"),
    ),
    Mutation(
        rule="anchors are a chain without gaps",
        file=ANCHORS,
        old="            if (anchor.number, anchor.previous) != (\n",
        new="            if False and (anchor.number, anchor.previous) != (\n",
        tests=unit("test_anchors_that_were_touched_are_found"),
    ),
    Mutation(
        rule="no anchor leaves out what the one before it names",
        file=ANCHORS,
        old="elif before is not None and not goes_on(before, anchor):",
        new="elif False:",
        tests=unit("test_anchor_that_leaves_a_partition_out_is_found"),
    ),
    Mutation(
        rule="the table is not cut behind the file",
        file=ANCHORS,
        old="        while copy.signed is not None:\n",
        new="        while False:\n",
        tests=attack("cut_store_and_table"),
    ),
    Mutation(
        rule="the file has all anchors but the newest",
        file=ANCHORS,
        old="        self._lacks(lacking, copy.last)\n",
        new="",
        tests=unit("test_anchors_that_were_touched_are_found"),
    ),
    Mutation(
        rule="an anchor that is new may not be in the file yet",
        file=ANCHORS,
        old="anchor.number > last and anchor.made_at >= self._clock() - self._grace",
        new="False",
        tests=unit("test_anchor_that_is_not_yet_in_the_file_is_told_and_no_tampering"),
    ),
    Mutation(
        rule="a seal that is gone stays anchored",
        file=f"{DOMAIN}/anchors.py",
        old="            heads[partition] = head\n",
        new="",
        tests=unit("test_seal_that_is_gone_stays_anchored"),
    ),
    Mutation(
        rule="a statement is read only as it is written",
        file=f"{DOMAIN}/anchors.py",
        old="anchor.made_at.tzinfo is None or anchor.statement != statement",
        new="anchor.made_at.tzinfo is None",
        tests=unit("test_statement_is_read_only_as_it_is_written"),
    ),
    Mutation(
        rule="nothing is anchored twice",
        file=MAKING,
        old="return made if is_new else None",
        new="return made",
        tests=unit("test_anchor_is_made_only_of_something_new"),
    ),
    Mutation(
        rule="nobody goes on from a forged anchor",
        file=MAKING,
        old="if last is not None and not self._check(last):",
        new="if False:",
        tests=unit("test_nobody_goes_on_from_an_anchor_that_is_not_ours"),
    ),
    Mutation(
        rule="the file gets what a crash kept from it",
        file=MAKING,
        old="        if self._copy is not None:\n",
        new="        if self._copy is not None and made is not None:\n",
        tests=unit("test_copy_gets_what_a_crash_kept_from_it"),
    ),
    Mutation(
        rule="a line that was cut is mended",
        file=KEEPING,
        old="            file.truncate(self._whole(file))\n",
        new="",
        tests=unit("test_last_line_that_a_crash_cut_is_told_and_mended_by_the_next"),
    ),
    Mutation(
        rule="an anchor is in the file once",
        file=KEEPING,
        old=" if not 0 < _number(signed) <= end)",
        new=")",
        tests=unit("test_file_gives_back_what_was_appended"),
    ),
    *(
        Mutation(
            rule=f"a proof is refused if {what}",
            file=PROVING,
            old=f'        "{what}": ',
            new=f'        "{what}": True or ',
            tests=unit("test_proof_of_which_anything_was_changed_does_not_hold"),
        )
        for what in (
            "the content is not what its bytes say",
            "the id does not follow from the content",
            "the leaf is not the hash of the bytes",
            "the path does not lead from the leaf to the root of the seal",
            "a seal does not follow from the one before it",
            "the anchor does not name the last seal",
            "the anchor is not signed by our key",
        )
    ),
    Mutation(
        rule="what was edited is not proven",
        file=PROVING,
        old="if seal.leaves[at] != leaf(content):",
        new="if False:",
        tests=unit("test_what_cannot_be_proven_says_why"),
    ),
    Mutation(
        rule="the workshop's key is refused elsewhere",
        file="showcase/platform/settings.py",
        old='if self.environment != "workshop" and given == WORKSHOP_ANCHOR_KEY:',
        new="if False:",
        tests=unit("test_key_of_the_workshop_is_refused_elsewhere"),
    ),
)
