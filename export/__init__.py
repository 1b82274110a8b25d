"""Export: command-line modules that turn a model into graphs; never imported while serving."""

from router import telemetry

telemetry.switch_off()
