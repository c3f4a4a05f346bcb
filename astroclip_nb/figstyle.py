"""The one look of every figure."""

from .paths import PACKAGE


def use_style():
    """Apply the project's matplotlib style to the current session."""
    import matplotlib.pyplot as plt

    plt.style.use(PACKAGE / "style.mplstyle")
