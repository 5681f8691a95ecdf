"""The Helm chart, as data of the package: `magnetar helm chart DIR` puts it into a folder."""
