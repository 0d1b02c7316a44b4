module localredirect.test/apiserver
