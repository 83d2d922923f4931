"""The rules by which a change of a product becomes known, wholly and in its order; they need servers."""

from tests.mutations import rule

MIGRATION = "showcase/migrations/versions/v0006_catalogue.py"
SHOP = "showcase/shop/application/shop.py"
PRODUCTS = "showcase/shop/infrastructure.py"
API = "showcase/shop/api/shop.py"
WORKER = "showcase/caching/worker.py"
UNIT = "tests/unit/test_shop.py"
READER = "tests/unit/test_invalidation.py"
REAL = "tests/integration/test_catalogue_changes.py"

RAISED = f"{REAL}::test_whoever_writes_a_product_raises_its_version_and_nobody_sets_it"
GARBAGE = f"{READER}::test_garbage_holds_up_nothing"


MUTATIONS = (
    rule("an update by hand raises the version", MIGRATION, "BEFORE INSERT OR UPDATE ON", "BEFORE INSERT ON", RAISED),
    rule(
        "nobody sets a version",
        MIGRATION,
        "NEW.version := nextval('public.product_versions');",
        "NEW.version := coalesce(NEW.version, nextval('public.product_versions'));",
        RAISED,
    ),
    rule(
        "what somebody else has changed is not overwritten",
        PRODUCTS,
        "IS NULL OR version",
        "IS NULL OR true OR version",
        f"{REAL}::test_of_two_who_change_what_both_have_read_one_is_overtaken",
    ),
    rule(
        "a product and its event are stored together",
        SHOP,
        "        async with self.transaction():\n            product = await self.products.change(",
        "        if True:\n            product = await self.products.change(",
        f"{REAL}::test_a_change_whose_event_cannot_be_stored_is_none",
    ),
    rule(
        "who is told at once can see the change",
        SHOP,
        "            await self.events.add(change_of(product))\n",
        "            await self.events.add(change_of(product))\n"
        "            await self.changed(product_id, product.version)\n",
        f"{REAL}::test_a_change_is_stored_told_and_answered_with_its_version",
    ),
    rule(
        "a change is made also if nobody can be told",
        SHOP,
        "        except Exception:\n            log",
        "        except ZeroDivisionError:\n            log",
        f"{UNIT}::test_a_change_is_made_also_if_nobody_can_be_told_at_once",
    ),
    rule(
        "only staff changes the catalogue",
        API,
        "require(Scope.CATALOGUE_WRITE)",
        "require(Scope.ORDERS_READ)",
        f"{REAL}::test_who_may_not_change_a_product_or_not_any_more_does_not",
    ),
    rule(
        "of a batch the newest change counts",
        WORKER,
        "max(newest.get(row, (0, False)), (version, is_gone))",
        "(version, is_gone)",
        f"{READER}::test_of_a_batch_the_newest_change_of_a_row_removes_in_whatever_order_they_come",
    ),
    rule(
        "a truncation removes everything",
        WORKER,
        "        if is_emptied:\n",
        "        if False:\n",
        f"{READER}::test_a_truncation_removes_everything_and_a_tombstone_or_a_message_nothing",
    ),
    rule("a version that cannot be compared is garbage", WORKER, "<= version <= NEWEST_VERSION", "<= version", GARBAGE),
    rule("a row without its numbers is garbage", WORKER, "(TypeError, KeyError)", "TypeError", GARBAGE),
    rule(
        "a change is read when its removal is made",
        WORKER,
        "            await invalidate(row, version, is_gone)\n",
        "            try:\n                await invalidate(row, version, is_gone)\n"
        "            except Exception:\n                log.exception('lost')\n",
        f"{REAL}::test_a_change_by_hand_reaches_the_invalidator_and_none_is_lost_while_redis_is_away",
    ),
)
