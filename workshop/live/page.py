"""The page *My orders*, shown in a notebook for as long as its process runs."""

from IPython.display import HTML, IFrame, Markdown, display

HEIGHT = 640


class Shown:
    """A frame in the output of a cell. A notebook that is stored keeps words in its place: its address is gone then.

    Args:
        url: of the page.
        email, password: with which somebody who looks signs in.
    """

    def __init__(self, url: str, email: str, password: str) -> None:
        display(Markdown(f"Sign in as `{email}` with the password `{password}`, then run the next cell."))
        self._handle = display(IFrame(url, width="100%", height=HEIGHT), display_id=True)

    def close(self) -> None:
        """Put words in its place; harmless outside of a notebook."""
        if self._handle is not None:
            self._handle.update(HTML("<em>While the lesson runs, the page itself is here.</em>"))
