"""The operating system under the adapters: processes that outlive us, files written whole, free ports.

Used by `envoy` and `fleet`; knows neither endpoints nor Envoy.
"""
