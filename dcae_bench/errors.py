"""The errors a user can cause: one clear line each, exit code 2, never a traceback."""


class UserError(Exception):
    """Base of every error whose remedy is in the user's hands.

    The message is one line that names the file or option, the value found and the remedy.
    """


class ConfigError(UserError):
    """A profile that does not exist, cannot be parsed, or does not fit its schema."""


class DataError(UserError):
    """A photograph or data set that is missing, corrupt, or not the one the manifest names."""


class WeightsError(UserError):
    """A weights file that is missing, has the wrong hash, or does not fit the model."""


class ResultsError(UserError):
    """A results folder that cannot be written, or a record that cannot be read."""


class CheckError(UserError):
    """A finished measurement that does not agree with what it was checked against, where the user asked for that."""


class TrainingError(UserError):
    """A run that cannot go on: a non-finite loss, or a checkpoint of another recipe."""


class ProcessError(UserError):
    """One of the processes that shared a command failed; the message is its own, or says how it ended."""


class MeasurementError(UserError):
    """A measurement that cannot be made here: no GPU, a device in use, evidence that does not agree with itself."""
