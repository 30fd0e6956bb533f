"""Names the packages; pyproject.toml says the rest. Its own search cannot place experiments/ inside sfdkit."""

from setuptools import find_namespace_packages, find_packages, setup

experiments = [f"sfdkit.experiments.{name}" for name in find_namespace_packages("experiments")]
setup(packages=[*find_packages(include=["sfdkit*", "datamodules*"]), "sfdkit.experiments", *experiments])
