"""Keys open what their scopes say, and are stored as hashes only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.auth import (
    Key,
    Keyring,
    Limit,
    Scope,
    add_key,
    hash_key,
    load_keys,
    new_key,
    remove_key,
    require_keys_beyond_loopback,
)
from homeostat.errors import AuthError, SettingsError

PREDICT = frozenset({Scope.PREDICT})


@given(st.sets(st.sampled_from(Scope)), st.sampled_from(Scope))
def test_a_key_opens_its_scopes_and_admin_opens_all(scopes: set[Scope], wanted: Scope) -> None:
    """Anything else is a 403 that names the key and the scope."""
    token, key = new_key("shop", frozenset(scopes))
    keys = Keyring((new_key("other", frozenset(Scope))[1], key))
    if wanted in scopes or Scope.ADMIN in scopes:
        assert keys.allow(f"Bearer {token}", wanted) == "shop"
        return
    with pytest.raises(AuthError, match=f'"shop" lacks the scope "{wanted}"') as raised:
        keys.allow(f"Bearer {token}", wanted)
    assert raised.value.status == 403


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "hsk_abc",
        "Bearer hsk_abc",
        "bearer \u00e4\u2028",
    ],
)
def test_no_key_or_an_unknown_one_is_a_401(header: str | None) -> None:
    """And what was sent is not repeated."""
    keys = Keyring((new_key("shop", PREDICT)[1],))
    with pytest.raises(AuthError) as raised:
        keys.allow(header, Scope.PREDICT)
    assert raised.value.status == 401
    assert "hsk_abc" not in str(raised.value)


def test_without_keys_everybody_may_do_everything() -> None:
    """Which is why such a process listens on loopback only."""
    assert Keyring().allow(None, Scope.ADMIN) == ""
    assert not Keyring()
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        require_keys_beyond_loopback(host, Keyring(), "serving")
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        with pytest.raises(SettingsError, match="homeostat keys new") as raised:
            require_keys_beyond_loopback(host, Keyring(), "serving")
        assert raised.value.key == "serving.host"
        require_keys_beyond_loopback(host, Keyring((new_key("a", PREDICT)[1],)), "serving")


def test_every_key_is_compared_wherever_the_right_one_stands() -> None:
    """Finding it first or last looks the same: no comparison is left out."""
    compared: list[str] = []

    class Watched(str):
        def __eq__(self, other: object) -> bool:
            compared.append("by ==")
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    token, key = new_key("right", PREDICT)
    others = [new_key(f"other{i}", PREDICT)[1] for i in range(3)]

    def iterated(keys: list[Key]) -> int:
        seen: list[Key] = []

        class Counting(tuple[Key, ...]):
            def __iter__(self):  # type: ignore[no-untyped-def]
                for item in tuple.__iter__(self):
                    seen.append(item)
                    yield item

        Keyring(Counting(keys)).allow(f"Bearer {token}", Scope.PREDICT)
        return len(seen)

    watched = Key("right", Watched(key.sha256), PREDICT)
    assert iterated([watched, *others]) == iterated([*others, watched]) == 4
    assert compared == []  # plain == would stop at the first different character


def test_keys_are_stored_as_hashes_in_a_file_of_its_owner(tmp_path: Path) -> None:
    """Added one by one, read back the same; the secret is nowhere."""
    path = tmp_path / "home" / "keys.toml"
    made = [
        new_key("shop", PREDICT),
        new_key('a "quoted"\nname \\ 🦉', frozenset({Scope.ADMIN, Scope.LABEL})),
    ]
    for _, key in made:
        add_key(path, key)
    assert load_keys(path).keys == tuple(key for _, key in made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for token, key in made:
        assert token not in path.read_text()
        assert key.sha256 == hash_key(token)
    with pytest.raises(SettingsError, match="exists already"):
        add_key(path, made[0][1])


def test_a_key_that_is_removed_is_gone_and_the_last_one_stays(tmp_path: Path) -> None:
    """The others stay as they are; without any key, the door would be open."""
    path = tmp_path / "keys.toml"
    limit = Limit(2.5, 10.0)
    keys = [new_key(name, PREDICT, limit)[1] for name in ("a", "b", "c")]
    for key in keys:
        add_key(path, key)
    remove_key(path, "b")
    assert load_keys(path).keys == (keys[0], keys[2])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match='no key is named "b"; there are: a, c'):
        remove_key(path, "b")
    remove_key(path, "a")
    with pytest.raises(SettingsError, match='"c" is the only key'):
        remove_key(path, "c")
    assert load_keys(path).keys == (keys[2],)
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_means_no_keys_and_a_broken_one_is_told(tmp_path: Path) -> None:
    """A file that cannot be understood must not open the door."""
    assert load_keys(tmp_path / "none.toml").keys == ()
    path = tmp_path / "keys.toml"
    for text in (
        "[[keys]]",
        "keys = 5",
        'keys = ["a"]',
        "not toml",
        '[[keys]]\nname = "a"\nsha256 = "b"\nscopes = ["root"]',
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match="homeostat keys new"):
            load_keys(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match=r"keys\.toml: cannot be read .* put a file there"):
        load_keys(path)
