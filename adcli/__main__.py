from adcli.main import main

main()
