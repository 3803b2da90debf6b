"""A package of a user, named in studies as `support.user_package.networks:SmallNet`."""
