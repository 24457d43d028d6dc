"""Errors that a user can cause. The command line prints each as one line, without traceback, and exits with code 2."""


class UserError(Exception):
    """Base of every error that the user can remedy.

    The message is one line that names the file or option, the value found and the remedy.
    """


class ConfigError(UserError):
    """A profile that does not exist, cannot be parsed, or does not fit its schema."""


class DataError(UserError):
    """A photograph or data set that is missing, corrupt or different from the one in the manifest."""


class WeightsError(UserError):
    """A weights file that is missing, has the wrong hash, or does not fit the model."""


class ResultsError(UserError):
    """A results folder that cannot be written, or a record that cannot be read."""


class CheckError(UserError):
    """A measurement that does not agree with its expected value. Raised only when the user asked for the check."""


class TrainingError(UserError):
    """A training run that cannot go on: its loss is not finite, or its checkpoint has another recipe."""


class ProcessError(UserError):
    """One process of a command with several failed. The message is that process's error, or says how it ended."""


class MeasurementError(UserError):
    """A measurement that is impossible on this machine (no GPU, or a busy one) or whose evidence contradicts itself."""
