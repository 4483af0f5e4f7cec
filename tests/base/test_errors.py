from stages.base.errors import cannot_be_loaded, first_line, last_line


def test_a_librarys_message_in_one_line():
    assert first_line(ValueError("\n a\nb")) == "a" and last_line(ValueError("a\n  b \n")) == "b"
    assert len(first_line(ValueError("x" * 5000))) == len(last_line(ValueError("x" * 5000))) == 300


def test_an_error_that_says_nothing_is_named():
    for error in (OSError(), ValueError(""), RuntimeError("\n")):
        assert first_line(error) == last_line(error) == type(error).__name__
    assert str(cannot_be_loaded("--sam x", OSError())) == "--sam x: cannot be loaded (OSError)"
